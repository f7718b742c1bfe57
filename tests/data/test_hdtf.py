"""HDTF annotation files with all their oddities, and videos of another resolution than the annotated one."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dicetalk.data.corpora.hdtf import Hdtf, HdtfIndex, _time_ranges, speaker
from dicetalk.data.media import write_video
from dicetalk.errors import DicetalkError


def index_hdtf(root: Path, sets: list[str], piece_seconds: float) -> pd.DataFrame:
    """The index rows of a folder that `index.talks` names."""
    section = {"kind": "hdtf", "root": str(root), "test_identities": 1}
    settings = HdtfIndex.model_validate(section | {"sets": sets, "piece_seconds": piece_seconds})
    return Hdtf("talks", settings).read(root)


def write_annotations(root: Path) -> None:
    """Write one set with byte order mark, trailing blanks and a last line without newline."""
    (root / "videos").mkdir()
    files = {
        "video_url": "\ufeffAnnSmith1 https://example.org/1\nBobRay https://example.org/2&t=6s\n",
        "resolution": "AnnSmith1.mp4 720\nBobRay.mp4 0",
        "annotion_time": "AnnSmith1.mp4 00:05-00:15 01:00-01:25 \nBobRay.mp4 00:02-00:09\n",
        "crop_wh": "AnnSmith1_0.mp4 320 400 80 400\nBobRay_0.mp4 1 2 3 4",
    }
    for kind, text in files.items():
        (root / f"WDA_{kind}.txt").write_bytes(text.encode())


def write_small_video(path: Path) -> None:
    write_video(path, [np.zeros((180, 320, 3), np.uint8)] * 2, 25)


@pytest.fixture
def root(tmp_path):
    write_annotations(tmp_path)
    write_small_video(tmp_path / "videos" / "WDA_AnnSmith1.mp4")
    return tmp_path


def test_ranges_pieces_crops_and_missing_videos(root):
    table = index_hdtf(root, ["WDA"], 10.0)
    assert table["clip_id"].tolist() == [
        "WDA_AnnSmith1_000",
        "WDA_AnnSmith1_001_000",
        "WDA_AnnSmith1_001_001",
        "WDA_AnnSmith1_001_002",
    ]
    assert table["start_seconds"].tolist() == pytest.approx([5, 60, 60 + 25 / 3, 60 + 50 / 3])
    assert table["end_seconds"].iloc[-1] == pytest.approx(85)
    # 180 stored lines instead of the 720 annotated ones: a quarter.
    assert table.loc[0, ["crop_x", "crop_y", "crop_w", "crop_h"]].tolist() == [80, 20, 100, 100]
    assert table["crop_x"].isna().tolist() == [False, True, True, True]
    assert set(table["identity"]) == {"WDA_AnnSmith"} and (table["video_path"] == table["audio_path"]).all()
    with open(root / "talks-missing-videos.csv", newline="") as stream:
        assert list(csv.reader(stream))[1:] == [["videos/WDA_BobRay.mp4", "https://example.org/2&t=6s"]]


def test_windows_of_an_unknown_height_are_used_where_they_fit(root):
    (root / "WDA_resolution.txt").write_text("AnnSmith1.mp4 0\n")
    (root / "WDA_crop_wh.txt").write_text("AnnSmith1_0.mp4 20 100 30 100\nAnnSmith1_1.mp4 20 400 30 400\n")
    table = index_hdtf(root, ["WDA"], 30.0)
    assert table["crop_x"].fillna(-1).tolist() == [20, -1]


def test_a_damaged_video_stops_no_index(root):
    (root / "videos" / "WDA_BobRay.mp4").write_bytes(b"not a video")
    table = index_hdtf(root, ["WDA"], 30.0)
    assert len(table) == 3 and (root / "talks-missing-videos.csv").read_text().count("\n") == 1


def test_impossible_boxes_are_left_out(root):
    (root / "WDA_crop_wh.txt").write_text("AnnSmith1_0.mp4 1400 400 80 400\n")
    assert index_hdtf(root, ["WDA"], 10.0)["crop_x"].isna().all()


def test_one_speaker_in_several_videos_is_one_identity():
    assert speaker("WRA", "AdamKinzinger0") == speaker("WRA", "AdamKinzinger2")
    assert speaker("RD", "Radio1") != speaker("RD", "Radio11")


def test_problems_are_named(root):
    with pytest.raises(DicetalkError, match="RD_video_url.txt"):
        index_hdtf(root, ["RD"], 10.0)
    (root / "WDA_annotion_time.txt").write_text("AnnSmith1.mp4 00:05~00:15\n")
    with pytest.raises(DicetalkError, match="MM:SS"):
        index_hdtf(root, ["WDA"], 10.0)
    (root / "WDA_annotion_time.txt").write_text("BobRay.mp4 00:05-00:15\n")
    with pytest.raises(DicetalkError, match="None of HDTF's videos"):
        index_hdtf(root, ["WDA"], 10.0)


def test_published_annotations(shared_dir, tmp_path):
    for file in (shared_dir / "datasets" / "hdtf").glob("*.txt"):
        shutil.copy(file, tmp_path / file.name)
    counts = {subset: [len(r) for _, r in _time_ranges(tmp_path, subset)] for subset in ("RD", "WDA", "WRA")}
    assert {k: (len(v), sum(v)) for k, v in counts.items()} == {
        "RD": (56, 66),
        "WDA": (183, 195),
        "WRA": (130, 175),
    }
    (tmp_path / "videos").mkdir()
    write_small_video(tmp_path / "videos" / "RD_Radio11.mp4")
    table = index_hdtf(tmp_path, ["RD", "WDA", "WRA"], 1000.0)
    assert table["clip_id"].tolist() == ["RD_Radio11_000", "RD_Radio11_001"] and table["crop_x"].notna().all()
    with open(tmp_path / "talks-missing-videos.csv", newline="") as stream:
        missing = list(csv.DictReader(stream))
    assert len(missing) == 368 and all(row["url"].startswith("http") for row in missing)
