"""MEAD as it really lies on disk, in miniature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dicetalk.data.corpora.mead import Mead, MeadIndex
from dicetalk.errors import DicetalkError


def index_mead(root: Path, views: Any = None) -> pd.DataFrame:
    """The index rows of a folder that `index.acted` names."""
    section = {"kind": "mead", "root": str(root), "views": views or ["front"], "test_identities": 1}
    return Mead("acted", MeadIndex.model_validate(section)).read(root)


def touch(root: Path, *paths: str) -> None:
    """Make empty files; indexing does not open them."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_rows_say_everything_about_a_clip(tmp_path):
    touch(
        tmp_path,
        "M003/video/front/happy/level_2/007.mp4",
        "M003/video/front/happy/level_2/031.mp4",  # numbers have gaps
        "M003/audio/happy/level_2/007.m4a",
        "M003/video/top/happy/level_2/007.mp4",
        "notes/readme.txt",
    )
    table = index_mead(tmp_path)
    assert list(table["clip_id"]) == ["M003_front_happy_2_007", "M003_front_happy_2_031"]
    row = table.iloc[0]
    assert (row["identity"], row["emotion"], row["level"], row["sentence"]) == ("M003", "happy", 2, "007")
    assert row["video_path"] == "M003/video/front/happy/level_2/007.mp4"
    assert row["audio_path"] == "M003/audio/happy/level_2/007.m4a"
    assert table["audio_path"].isna().tolist() == [False, True]
    assert row["start_seconds"] == 0 and table["end_seconds"].isna().all() and table["crop_x"].isna().all()
    assert len(index_mead(tmp_path, ["front", "top"])) == 3


def test_split_downloads_have_an_extra_folder(tmp_path):
    touch(
        tmp_path,
        "W011/video-001/video/front/sad/level_1/001.mp4",
        "W011/video-002/front/sad/level_1/002.mp4",
        "W011/audio-001/audio/sad/level_1/002.m4a",
    )
    table = index_mead(tmp_path)
    assert table["sentence"].tolist() == ["001", "002"] and table["audio_path"].isna().tolist() == [
        True,
        False,
    ]


def test_only_meads_own_classes_are_read_and_the_rest_is_counted(tmp_path, capsys):
    touch(
        tmp_path,
        "M003/video/front/neutral/level_1/001.mp4",
        "M003/video/front/neutral/level_2/001.mp4",
        "M003/video/front/bored/level_1/001.mp4",
        "M003/video/front/angry/level_1/001.mp4.part",
    )
    assert index_mead(tmp_path)["clip_id"].tolist() == ["M003_front_neutral_1_001"]
    assert "3 names" in capsys.readouterr().err


def test_problems_are_named(tmp_path):
    with pytest.raises(DicetalkError, match="no clip of the form"):
        index_mead(tmp_path)
    touch(tmp_path, "M003/video/front/happy/level_1/001.mp4", "M005/video.tar", "M005/audio.tar")
    with pytest.raises(DicetalkError, match="M005/video.tar, M005/audio.tar.*tar -xf"):
        index_mead(tmp_path)
    touch(tmp_path, "M005/video/front/happy/level_1/001.mp4")
    with pytest.raises(
        DicetalkError, match=r"in .*: M005/audio.tar\."
    ):  # else all of M005 would have no sound
        index_mead(tmp_path)
    touch(tmp_path, "M005/audio/happy/level_1/001.m4a", "M005/video/down/happy/level_1/001.mp4")
    assert len(index_mead(tmp_path)) == 2
    assert len(index_mead(tmp_path, "all")) == 3
    with pytest.raises(DicetalkError, match="index.acted.views names left_30, .*found: down, front"):
        index_mead(tmp_path, ["front", "left_30"])
    (tmp_path / "W009").mkdir()
    with pytest.raises(DicetalkError, match=r"W009 \(no video folder\)"):
        index_mead(tmp_path)
    (tmp_path / "W009").rmdir()
    touch(tmp_path, "M003/video-001/video/front/happy/level_1/001.mp4")
    with pytest.raises(DicetalkError, match="two folders"):
        index_mead(tmp_path)
