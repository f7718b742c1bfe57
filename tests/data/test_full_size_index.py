"""MEAD and HDTF at full size: every published name as an entry on disk, indexed in seconds, counted exactly.

The names and the annotation files are real; the media files are links to one tiny video.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dicetalk.data.corpora.hdtf import HdtfIndex, _lines
from dicetalk.data.corpora.mead import MeadIndex
from dicetalk.data.index import build_index
from dicetalk.data.index_table import read_index
from dicetalk.data.media import write_video
from dicetalk.labels import CLASSES

MEAD_NAME = re.compile(r"([MW]\d{3})#(\w+)#level_(\d)#(\d{3})")
EAT_TEST = {"M003": 667, "W015": 664, "W009": 656, "M030": 306}
INDEX_SECONDS = 30
HOURS = {"RD": 1.20, "WDA": 11.10, "WRA": 4.77}


@pytest.fixture(scope="module")
def names(shared_dir: Path) -> dict[str, list[str]]:
    """The published clip names of both corpora by split."""
    folder = shared_dir / "datasets" / "mead"
    return {split: json.loads((folder / f"EDTalk_{split}.json").read_text()) for split in ("train", "test")}


@pytest.fixture(scope="module")
def skeleton(shared_dir, names, tmp_path_factory) -> Path:
    """Both corpora in their own layouts."""
    root = tmp_path_factory.mktemp("raw")
    tiny = root / "tiny.mp4"
    write_video(tiny, [np.zeros((1080, 1920, 3), np.uint8)], 25)
    folders = set()
    for name in names["train"] + names["test"]:
        if match := MEAD_NAME.fullmatch(name):
            person, emotion, level, sentence = match.groups()
            for kind, suffix in (("video/front", "mp4"), ("audio", "m4a")):
                folder = root / "mead" / person / kind / emotion / f"level_{level}"
                if folder not in folders:
                    folder.mkdir(parents=True)
                    folders.add(folder)
                os.link(tiny, folder / f"{sentence}.{suffix}")
    (root / "hdtf" / "videos").mkdir(parents=True)
    for file in (shared_dir / "datasets" / "hdtf").glob("*.txt"):
        shutil.copy(file, root / "hdtf")
    for subset in HOURS:
        for name, *_ in _lines(root / "hdtf", subset, "annotion_time", 2):
            os.link(tiny, root / "hdtf" / "videos" / f"{subset}_{name}.mp4")
    return root


def build(dataset, params, folder):
    started = time.monotonic()
    summary = build_index(dataset, params, folder / f"{dataset}.parquet")
    seconds = time.monotonic() - started
    return summary, read_index(folder / f"{dataset}.parquet")[0], seconds


def test_mead(skeleton, names, tmp_path):
    params = MeadIndex(kind="mead", root=str(skeleton / "mead"), views=["front"], test_identities="eat")
    summary, table, seconds = build("mead", params, tmp_path)
    assert seconds < INDEX_SECONDS
    assert (summary["train_clips"], summary["test_clips"]) == (25_747, 2_293)
    assert (summary["train_identities"], summary["test_identities"]) == (39, 4)
    assert summary["clips_without_audio"] == 0
    tests = table[table["split"] == "test"]
    assert tests["identity"].value_counts().to_dict() == EAT_TEST

    published = {
        split: [match.groups() for name in entries if (match := MEAD_NAME.fullmatch(name))]
        for split, entries in names.items()
    }
    for split, clips in published.items():
        rows = table[table["split"] == split]
        found = Counter(zip(rows["identity"], rows["emotion"], rows["level"].astype(str), strict=True))
        assert found == Counter(clip[:3] for clip in clips)
    assert set(zip(table["emotion"], table["level"], strict=True)) == set(CLASSES)
    sentences = table.groupby("emotion")["sentence"].max()
    assert sentences["neutral"] == "077" and sentences.drop("neutral").max() == "058"  # numbers have gaps


def test_hdtf(skeleton, names, tmp_path):
    whole = HdtfIndex(
        kind="hdtf",
        root=str(skeleton / "hdtf"),
        sets=["RD", "WDA", "WRA"],
        test_identities=20,
        piece_seconds=1e6,
    )
    summary, table, seconds = build("hdtf", whole, tmp_path)
    assert seconds < INDEX_SECONDS
    assert table["video_path"].nunique() == 369 and len(table) == summary["clips"] == 436
    assert table["crop_w"].notna().sum() == 421
    assert (table["crop_w"] == table["crop_h"]).sum() >= 415  # square, but where the frame cuts them
    lengths = (table["end_seconds"] - table["start_seconds"]) / 3600
    hours = lengths.groupby(table["clip_id"].str.split("_").str[0]).sum().round(2).to_dict()
    assert hours == HOURS and round(lengths.sum(), 2) == 17.07
    without = table.loc[table["crop_x"].isna(), "clip_id"]
    assert {"RD_Radio15_000", "WDA_DeanPhillips_000", "WRA_DuncanHunter_001"} <= set(without)
    assert (tmp_path / "hdtf-missing-videos.csv").read_text() == "video_path,url\n"

    # The clips that another project cut into 5-s pieces are clips of this index, as many pieces long.
    pieces = Counter(
        name.split("#")[0] for name in names["train"] + names["test"] if not MEAD_NAME.fullmatch(name)
    )
    assert len(pieces) == 385 and sum(pieces.values()) == 10_347
    assert set(pieces) <= set(table["clip_id"])


def test_both_together_in_pieces(skeleton, tmp_path):
    """The index of a training run, all 38,000 entries, within the time of one."""
    mead = MeadIndex(kind="mead", root=str(skeleton / "mead"), views="all", test_identities="paper")
    hdtf = HdtfIndex(
        kind="hdtf",
        root=str(skeleton / "hdtf"),
        sets=["RD", "WDA", "WRA"],
        test_identities=20,
        piece_seconds=5.0,
    )
    first, table, mead_seconds = build("mead", mead, tmp_path)
    second, pieces, hdtf_seconds = build("hdtf", hdtf, tmp_path)
    assert first["clips"] + second["clips"] > 38_000 and mead_seconds + hdtf_seconds < INDEX_SECONDS
    assert first["test_identities"] == 5 and table.loc[table["split"] == "test", "identity"].nunique() == 5
    assert (pieces["end_seconds"] - pieces["start_seconds"]).max() <= 5.0
    for split in ("train", "test"):  # no person on both sides
        assert not set(pieces.loc[pieces["split"] == split, "identity"]) & set(
            pieces.loc[pieces["split"] != split, "identity"]
        )
