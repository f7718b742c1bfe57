"""Tables have one form whatever the data set, and identities never appear on both sides of the split."""

from __future__ import annotations

import pytest

from dicetalk.data.corpora.mead import MeadIndex
from dicetalk.data.index import assign_split, build_index
from dicetalk.data.index_table import DTYPES, make_table, read_index
from dicetalk.errors import DicetalkError


@pytest.fixture
def table():
    clips = [
        (f"{person}-{k}", person) for person in ("M003", "M005", "M007", "W009", "W011") for k in range(3)
    ]
    return make_table(
        {"clip_id": clip, "dataset": "x", "identity": person, "video_path": "v", "audio_path": "v"}
        for clip, person in reversed(clips)
    )


def test_tables_are_complete_typed_and_sorted(table):
    assert {name: str(table[name].dtype) for name in table} == DTYPES
    assert table["clip_id"].is_monotonic_increasing
    assert table["level"].eq(0).all() and table["emotion"].isna().all()


@pytest.mark.parametrize("wanted", [2, ["M005", "W009"]])
def test_split_is_by_identity_and_repeatable(table, wanted):
    split = assign_split(table, wanted, "index.mead.test_identities")
    sides = split.groupby("identity")["split"].nunique()
    assert sides.eq(1).all()
    held_out = set(split.loc[split["split"] == "test", "identity"])
    assert len(held_out) == 2 and (isinstance(wanted, int) or held_out == set(wanted))
    again = assign_split(table.sample(frac=1, random_state=1), wanted, "key")
    assert set(again.loc[again["split"] == "test", "identity"]) == held_out


@pytest.mark.parametrize("wanted", [["M004"], 5, 9, []])
def test_impossible_splits_are_refused(table, wanted):
    with pytest.raises(DicetalkError, match="index.mead.test_identities"):
        assign_split(table, wanted, "index.mead.test_identities")


def test_index_file_carries_its_root(tmp_path):
    for person in ("M003", "W009"):
        clip = tmp_path / "raw" / person / "video" / "front" / "fear" / "level_3" / "004.mp4"
        clip.parent.mkdir(parents=True)
        clip.touch()
    params = MeadIndex(kind="mead", root=str(tmp_path / "raw"), views=["front"], test_identities=["W009"])
    summary = build_index("mead", params, tmp_path / "mead.parquet")
    assert summary["clips"] == 2 and summary["test_identities"] == 1 and summary["clips_without_audio"] == 2
    table, root = read_index(tmp_path / "mead.parquet")
    assert root == tmp_path / "raw" and (root / table["video_path"][0]).is_file()
    assert {name: str(table[name].dtype) for name in table} == DTYPES
    first = (tmp_path / "mead.parquet").read_bytes()
    build_index("mead", params, tmp_path / "mead.parquet")
    assert (tmp_path / "mead.parquet").read_bytes() == first


def test_problems_are_named(tmp_path):
    params = MeadIndex(kind="mead", root=str(tmp_path / "raw"), views=["front"], test_identities=1)
    with pytest.raises(DicetalkError, match="index.mead.root"):
        build_index("mead", params, tmp_path / "mead.parquet")
    with pytest.raises(DicetalkError, match="dvc repro index"):
        read_index(tmp_path / "mead.parquet")
