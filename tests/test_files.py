"""Files that say whether they are what was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicetalk.files import is_as_noted, noted_path

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


def test_a_noted_file_is_believed_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "items/shard"
    assert not is_as_noted(path)
    with noted_path(path) as temporary:
        temporary.write_bytes(b"abc")
    assert is_as_noted(path)
    assert (tmp_path / "items/shard.sha256").read_text() == ABC
    path.write_bytes(b"abb")
    assert not is_as_noted(path)


@pytest.mark.parametrize("note", [None, "", ABC[:-1] + "c"])
def test_a_file_without_its_right_note_is_not_believed(tmp_path: Path, note: str | None) -> None:
    path = tmp_path / "shard"
    path.write_bytes(b"abc")
    if note is not None:
        (tmp_path / "shard.sha256").write_text(note)
    assert not is_as_noted(path)


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), noted_path(tmp_path / "shard"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
