"""Kept + rejected = indexed, whatever happens in between."""

from __future__ import annotations

import csv

import pandas as pd
import pytest
from fake_face import SETTINGS, SquareTracker, picture, row, write_clip

from dicetalk.data import clip
from dicetalk.data.index import make_table, write_index
from dicetalk.data.preprocess import preprocess_folder, preprocess_index, run_preprocess
from dicetalk.data.shards import read_samples
from dicetalk.errors import DicetalkError


@pytest.fixture(autouse=True)
def squares_are_faces(monkeypatch):
    """Replace the networks; only counting and bookkeeping are under test."""
    monkeypatch.setattr(clip, "FaceTracker", SquareTracker)
    monkeypatch.setattr(clip, "_networks", lambda: (None, None))
    monkeypatch.setattr("dicetalk.weights.fetch", lambda names: {})


@pytest.fixture
def corpus(tmp_path):
    """Three good clips, one without a face, one that is not there."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in "abc":
        write_clip(raw / f"{name}.mp4", lambda k, name=name: picture(40 + ord(name) % 7, 40), 12)
    write_clip(raw / "d.mp4", lambda k: picture(side=0), 12)
    names = "ecabd"
    table = make_table(
        row(clip_id=f"clip-{n}", video_path=f"{n}.mp4", audio_path=f"{n}.mp4", emotion="sad", level=2)
        for n in names
    )
    return table, raw


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_clip_is_accounted_for(corpus, tmp_path):
    table, raw = corpus
    before = content(raw)
    summary = run_preprocess(table, raw, tmp_path / "out", SETTINGS, tmp_path / "runs")
    assert summary == {
        "indexed": 5,
        "kept": 3,
        "rejected": 2,
        "kept_seconds": 1.44,
        "reasons": {"no_face": 1, "unreadable": 1},
    }
    kept = pd.read_parquet(tmp_path / "out" / "kept.parquet")
    assert kept["clip_id"].tolist() == ["clip-a", "clip-b", "clip-c"]
    assert kept["shard"].tolist() == ["shard-000000.tar"] * 2 + ["shard-000001.tar"]
    assert kept["emotion"].tolist() == ["sad"] * 3 and set(map(len, kept["mask_box"])) == {4}
    assert [sample.clip_id for sample in read_samples(tmp_path / "out")] == kept["clip_id"].tolist()
    with open(tmp_path / "out" / "rejected.csv", newline="") as stream:
        rejected = {line["clip_id"]: line["reason"] for line in csv.DictReader(stream)}
    assert rejected == {"clip-d": "no_face", "clip-e": "unreadable"}
    assert content(raw) == before and not (tmp_path / "runs").exists()


def test_a_killed_run_continues_and_ends_in_the_same_bytes(corpus, tmp_path, monkeypatch):
    table, raw = corpus
    run_preprocess(table, raw, tmp_path / "whole", SETTINGS, tmp_path / "runs-1")
    done = []
    real = clip.preprocess_clip

    def fragile(row, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(row["clip_id"])
        return real(row, *rest)

    monkeypatch.setattr(clip, "preprocess_clip", fragile)
    with pytest.raises(KeyboardInterrupt):
        run_preprocess(table, raw, tmp_path / "out", SETTINGS, tmp_path / "runs-2")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(
        clip, "preprocess_clip", lambda row, *rest: done.append(row["clip_id"]) or real(row, *rest)
    )
    run_preprocess(table, raw, tmp_path / "out", SETTINGS, tmp_path / "runs-2")
    assert sorted(done) == table["clip_id"].tolist()
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize("change", ["settings", "file"])
def test_old_results_are_not_reused_after_a_change(corpus, tmp_path, monkeypatch, change):
    table, raw = corpus
    seen = []
    real = clip.preprocess_clip

    def fragile(row, *rest):
        seen.append(row["clip_id"])
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(row, *rest)

    monkeypatch.setattr(clip, "preprocess_clip", fragile)
    with pytest.raises(KeyboardInterrupt):
        run_preprocess(table, raw, tmp_path / "out", SETTINGS, tmp_path / "runs")
    settings = SETTINGS.model_copy(update={"crop_margin": 0.3}) if change == "settings" else SETTINGS
    if change == "file":
        write_clip(raw / "a.mp4", lambda k: picture(70, 50), 15)
    run_preprocess(table, raw, tmp_path / "out", settings, tmp_path / "runs")
    assert seen.count("clip-a") == 2
    sample = next(read_samples(tmp_path / "out"))
    assert sample.meta["num_frames"] == (15 if change == "file" else 12)


def test_index_file_and_folder(corpus, tmp_path, monkeypatch):
    table, raw = corpus
    monkeypatch.chdir(tmp_path)
    write_index(table, raw, tmp_path / "index" / "mead.parquet")
    first = preprocess_index(tmp_path / "index" / "mead.parquet", tmp_path / "one" / "mead", SETTINGS)
    second = preprocess_folder(raw, tmp_path / "two", SETTINGS)
    assert (first["kept"], second["kept"]) == (3, 3) and second["indexed"] == 4


def test_problems_are_named(corpus, tmp_path):
    table, raw = corpus
    twice = pd.concat([table, table.iloc[:1]])
    with pytest.raises(DicetalkError, match="clip-a"):
        run_preprocess(twice, raw, tmp_path / "out", SETTINGS, tmp_path / "runs")
    with pytest.raises(DicetalkError, match="rejected.csv"):
        run_preprocess(table.iloc[3:], raw, tmp_path / "out", SETTINGS, tmp_path / "runs")
    assert (tmp_path / "out" / "rejected.csv").read_text().count("\n") == 3
