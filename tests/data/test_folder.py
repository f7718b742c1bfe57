"""A folder of one's own videos."""

from __future__ import annotations

import pytest

from dicetalk.data.folder import index_folder
from dicetalk.errors import DicetalkError


@pytest.fixture
def folder(tmp_path):
    for name in ("my talk.mp4", "my-talk.mov", "sub/other.MKV", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_without_labels(folder):
    table = index_folder(folder)
    assert table["clip_id"].tolist() == ["my-talk", "my-talk-2", "sub-other"]
    assert table["identity"].tolist() == ["my talk", "my-talk", "other"]
    assert table["emotion"].isna().all() and (table["audio_path"] == table["video_path"]).all()


def test_labels(folder):
    (folder / "clips.csv").write_text(
        "file,identity,emotion,level\nsub/other.MKV,Ann,happy,3\nmy talk.mp4,Ann,,\n"
    )
    table = index_folder(folder).set_index("clip_id")
    assert table.loc["sub-other", ["identity", "emotion", "level"]].tolist() == ["Ann", "happy", 3]
    assert table.loc["my-talk", "identity"] == "Ann" and table.loc["my-talk", "level"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,emotion,level\nnowhere.mp4,happy,1\n", "line 2"),
        ("file,emotion,level\nsub/other.MKV,happy,4\n", "levels"),
        ("file,emotion,level\nsub/other.MKV,merry,1\n", "merry"),
        ("file,emotion\nsub/other.MKV,happy\n", "levels"),
        ("name,emotion\nsub/other.MKV,happy\n", "columns"),
        ("file,split\nsub/other.MKV,validation\n", "validation"),
    ],
)
def test_wrong_labels_are_refused(folder, text, message):
    (folder / "clips.csv").write_text(text)
    with pytest.raises(DicetalkError, match=message):
        index_folder(folder)


def test_a_corpus_with_a_folder_per_person_and_sound_apart(tmp_path):
    for name in ("mp4/id00012/21Uxsk56VDQ/00001.mp4", "aac/id00012/21Uxsk56VDQ/00001.m4a"):
        (tmp_path / "dev" / name).parent.mkdir(parents=True)
        (tmp_path / "dev" / name).touch()
    (tmp_path / "dev/mp4/id00012/21Uxsk56VDQ/00002.mp4").touch()
    table = index_folder(tmp_path, "extra", identity_folder=2)
    assert table["clip_id"].tolist() == [f"dev-mp4-id00012-21Uxsk56VDQ-0000{k}" for k in (1, 2)]
    assert set(table["identity"]) == {"id00012"} and set(table["dataset"]) == {"extra"}
    assert table["audio_path"].tolist() == [
        "dev/aac/id00012/21Uxsk56VDQ/00001.m4a",
        "dev/mp4/id00012/21Uxsk56VDQ/00002.mp4",
    ]
    with pytest.raises(DicetalkError, match="identity_folder"):
        index_folder(tmp_path, "extra", identity_folder=5)


def test_empty_folder(tmp_path):
    with pytest.raises(DicetalkError, match="no video"):
        index_folder(tmp_path)
