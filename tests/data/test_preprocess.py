"""Kept + rejected = indexed, whatever happens in between."""

from __future__ import annotations

import csv
import errno
from collections import namedtuple

import pandas as pd
import pytest
from fake_face import COMPUTE, SETTINGS, picture, row, write_clip
from filelock import FileLock

from dicetalk.data import clip, preprocess
from dicetalk.data.disk import BYTES_PER_PIXEL, report_need
from dicetalk.data.index_table import write_index
from dicetalk.data.preprocess import preprocess_folder, preprocess_index, run_preprocess
from dicetalk.data.shards import read_samples
from dicetalk.errors import DicetalkError
from dicetalk.files import read_json
from dicetalk.runs.work import MADE_OF

Usage = namedtuple("Usage", "total used free")


pytestmark = pytest.mark.usefixtures("squares_are_faces")


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_clip_is_accounted_for(corpus, tmp_path):
    table, raw = corpus
    before = content(raw)
    summary = run_preprocess(table, raw, tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs")
    counts = {
        "indexed": 5,
        "kept": 3,
        "rejected": 2,
        "kept_seconds": 1.44,
        "reasons": {"no_face": 1, "unreadable": 1},
    }
    assert read_json(tmp_path / "out" / "summary.json") == counts
    assert summary == counts | {"recovered": 0, "newly_crashed": 0}
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
    run_preprocess(table, raw, tmp_path / "whole", SETTINGS, COMPUTE, tmp_path / "runs-1")
    done = []
    real = clip.preprocess_clip

    def fragile(row, *rest, **scratch):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(row["clip_id"])
        return real(row, *rest, **scratch)

    monkeypatch.setattr(clip, "preprocess_clip", fragile)
    with pytest.raises(KeyboardInterrupt):
        run_preprocess(table, raw, tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs-2")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(
        clip,
        "preprocess_clip",
        lambda row, *rest, **scratch: done.append(row["clip_id"]) or real(row, *rest, **scratch),
    )
    run_preprocess(table, raw, tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs-2")
    assert sorted(done) == table["clip_id"].tolist()
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize("change", ["settings", "file"])
def test_old_results_are_not_reused_after_a_change(corpus, tmp_path, monkeypatch, change):
    table, raw = corpus
    seen = []
    real = clip.preprocess_clip

    def fragile(row, *rest, **scratch):
        seen.append(row["clip_id"])
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(row, *rest, **scratch)

    monkeypatch.setattr(clip, "preprocess_clip", fragile)
    with pytest.raises(KeyboardInterrupt):
        run_preprocess(table, raw, tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs")
    settings = SETTINGS.model_copy(update={"crop_margin": 0.3}) if change == "settings" else SETTINGS
    if change == "file":
        write_clip(raw / "a.mp4", lambda k: picture(70, 50), 15)
    run_preprocess(table, raw, tmp_path / "out", settings, COMPUTE, tmp_path / "runs")
    assert seen.count("clip-a") == 2
    sample = next(read_samples(tmp_path / "out"))
    assert sample.meta["num_frames"] == (15 if change == "file" else 12)


@pytest.mark.parametrize("resume", ["stop", "start-over", "accept-code-change"])
def test_clips_of_other_code_are_mixed_only_by_consent(corpus, tmp_path, monkeypatch, resume):
    table, raw = corpus
    seen, real = [], clip.preprocess_clip

    def fragile(row, *rest, **scratch):
        seen.append(row["clip_id"])
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(row, *rest, **scratch)

    def run(resume: str = "stop") -> dict:
        where = (tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs")
        return run_preprocess(table, raw, *where, resume=resume)

    monkeypatch.setattr(clip, "preprocess_clip", fragile)
    with pytest.raises(KeyboardInterrupt):
        run()
    [first, *others] = sorted(table["clip_id"])
    monkeypatch.setattr(preprocess, "_code", lambda: {"data/clip.py": "edited"})
    if resume == "stop":
        with pytest.raises(DicetalkError, match=r"data/clip.py.* changed since the unfinished run .*runs"):
            run()
        assert seen == [first, others[0]]
        return
    summary = run(resume)
    goes_on = resume == "accept-code-change"
    assert seen[2:] == (others if goes_on else [first, *others])
    changed = summary.get("resumed_across_code_changes", [])
    assert ("data/clip.py" in changed) == goes_on == bool(changed)
    # What was agreed to is said of every output that takes clips over, and a finished one is no longer mixed.
    del seen[2:]
    assert run().get("resumed_across_code_changes", []) == changed and len(seen) == 2
    monkeypatch.setattr(preprocess, "_code", lambda: {"data/clip.py": "edited again"})
    assert "resumed_across_code_changes" not in run() and seen[2:] == [first, *others]


def test_added_clips_are_the_only_work(corpus, tmp_path, monkeypatch):
    table, raw = corpus
    seen = []
    real = clip.preprocess_clip
    monkeypatch.setattr(
        clip,
        "preprocess_clip",
        lambda row, *rest, **scratch: seen.append(row["clip_id"]) or real(row, *rest, **scratch),
    )

    def run(rows, name="out"):
        seen.clear()
        return run_preprocess(rows, raw, tmp_path / name, SETTINGS, COMPUTE, tmp_path / f"runs-{name}")

    some = table[~table["clip_id"].isin(["clip-b", "clip-e"])]
    run(some)
    assert seen == ["clip-a", "clip-c", "clip-d"]
    summary = run(table)
    assert seen == ["clip-b", "clip-e"] and (summary["kept"], summary["rejected"]) == (3, 2)
    run(table, "fresh")
    assert content(tmp_path / "out") == content(tmp_path / "fresh")

    before = (tmp_path / "out").stat().st_mtime_ns
    assert run(table) == summary and seen == [] and (tmp_path / "out").stat().st_mtime_ns == before
    run(some)  # taking clips away is no work either
    assert seen == [] and len(pd.read_parquet(tmp_path / "out" / "kept.parquet")) == 2

    shard = tmp_path / "out" / "shard-000000.tar"  # what somebody changed is not trusted
    shard.write_bytes(shard.read_bytes() + b"0")
    run(some)
    assert seen == ["clip-a", "clip-c", "clip-d"]


def test_an_unexpected_error_costs_one_clip_and_shows(corpus, tmp_path, monkeypatch, capsys):
    table, raw = corpus
    real = clip.follow_face

    def stumble(video, *rest):
        if video.name == "b.mp4":
            raise ZeroDivisionError("division by zero")
        return real(video, *rest)

    monkeypatch.setattr(clip, "follow_face", stumble)
    summary = run_preprocess(table, raw, tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs")
    assert summary["reasons"]["failed"] == 1 and "clip-b failed:\nTraceback" in capsys.readouterr().err


def test_a_full_disk_stops_the_run_and_nothing_is_lost(corpus, tmp_path, monkeypatch):
    table, raw = corpus
    real, written = clip.write_video, []

    def fill(path, *rest, **options):
        written.append(path)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, *rest, **options)

    monkeypatch.setattr(clip, "write_video", fill)
    with pytest.raises(DicetalkError, match="disk is full.*run the same command again"):
        run_preprocess(table, raw, tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs")
    assert not (tmp_path / "out").exists()
    left = sorted(path.suffix for path in (tmp_path / "runs").iterdir() if path.name != MADE_OF)
    assert left == [".sha256", ".tar"]
    assert run_preprocess(table, raw, tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs")["kept"] == 3
    assert len(written) == 4  # the first clip was not encoded again


def test_the_need_of_disk_is_said_before(corpus, tmp_path, monkeypatch, capsys):
    table, raw = corpus
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(0, 0, 1000))
    run_preprocess(table, raw, tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs")
    said = capsys.readouterr().err.splitlines()[0]
    assert said.startswith("WARNING: 5 clips need about") and "will stop when the disk is full" in said
    rows = [row(start_seconds=10.0, end_seconds=20.0)] * 100
    per_second = 25 * (64 * 64 * BYTES_PER_PIXEL + 68 * 8) + 2 * 16000
    # Cut to 3 s each; every clip lies there twice for a while.
    assert report_need(rows, raw, SETTINGS, tmp_path) == pytest.approx(2 * 100 * 3 * per_second)


def test_two_runs_do_not_share_an_output(corpus, tmp_path):
    table, raw = corpus
    with FileLock(tmp_path / "runs.lock"), pytest.raises(DicetalkError, match="Another process"):
        run_preprocess(table, raw, tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs")


def test_index_file_and_folder(corpus, tmp_path, monkeypatch):
    table, raw = corpus
    monkeypatch.chdir(tmp_path)
    write_index(table, raw, tmp_path / "index" / "mead.parquet")
    first = preprocess_index(
        tmp_path / "index" / "mead.parquet", tmp_path / "one" / "mead", SETTINGS, COMPUTE
    )
    second = preprocess_folder(raw, tmp_path / "two", SETTINGS, COMPUTE)
    assert (first["kept"], second["kept"]) == (3, 3) and second["indexed"] == 4


def test_problems_are_named(corpus, tmp_path):
    table, raw = corpus
    twice = pd.concat([table, table.iloc[:1]])
    with pytest.raises(DicetalkError, match="clip-a"):
        run_preprocess(twice, raw, tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs")
    with pytest.raises(DicetalkError, match="rejected.csv"):
        run_preprocess(table.iloc[3:], raw, tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs")
    assert (tmp_path / "out" / "rejected.csv").read_text().count("\n") == 3
