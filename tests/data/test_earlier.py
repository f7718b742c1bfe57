"""Clips that did not change outlive the deletion of the output that held them, and nothing else does."""

from __future__ import annotations

import errno
import os
import shutil

import pandas as pd
import pytest
from fake_face import COMPUTE, SETTINGS, picture, write_clip

from dicetalk.data import scheduler
from dicetalk.data.index_table import write_index
from dicetalk.data.preprocess import preprocess_index, run_preprocess, stop_after_crashes

pytestmark = pytest.mark.usefixtures("squares_are_faces")


@pytest.fixture
def stage(corpus, tmp_path, monkeypatch, worked_on):
    """Preprocess some of the clips as DVC does, which deletes the output first; return what was worked on."""
    table, raw = corpus
    monkeypatch.chdir(tmp_path)

    def run(*names: str, settings=SETTINGS) -> list[str]:
        worked_on.clear()
        rows = table[table["clip_id"].isin([f"clip-{name}" for name in names])]
        write_index(rows, raw, tmp_path / "index/mead.parquet")
        shutil.rmtree("processed/mead", ignore_errors=True)
        preprocess_index(tmp_path / "index/mead.parquet", tmp_path / "processed/mead", settings, COMPUTE)
        return worked_on.copy()

    return run


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_only_what_changed_is_worked_on(stage, tmp_path, corpus):
    assert stage(*"acd") == ["clip-a", "clip-c", "clip-d"]
    assert stage(*"acd") == []
    assert stage(*"abcde") == ["clip-b", "clip-e"]
    grown = content(tmp_path / "processed/mead")
    assert stage(*"bcde") == []
    shrunk = content(tmp_path / "processed/mead")
    shutil.rmtree(tmp_path / "runs")
    assert stage(*"bcde") == ["clip-b", "clip-c", "clip-d", "clip-e"]
    assert content(tmp_path / "processed/mead") == shrunk
    shutil.rmtree(tmp_path / "runs")
    stage(*"abcde")
    assert content(tmp_path / "processed/mead") == grown
    write_clip(corpus[1] / "b.mp4", lambda k: picture(70, 50), 15)
    assert stage(*"abcde") == ["clip-b"]
    assert len(stage(*"abcde", settings=SETTINGS.model_copy(update={"crop_margin": 0.3}))) == 5


def test_the_links_are_no_copies_and_no_leftovers(stage, tmp_path):
    stage(*"abcde")
    output, links = tmp_path / "processed/mead", tmp_path / "runs/preprocess-mead-earlier"
    assert {p.name: p.stat().st_ino for p in links.iterdir()} == {
        p.name: p.stat().st_ino for p in output.iterdir()
    }
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        links.name,
        "preprocess-mead-ledger.json",
    }


def test_what_somebody_changed_is_not_trusted(stage, tmp_path):
    stage(*"abc")
    with open(tmp_path / "processed/mead/shard-000000.tar", "ab") as shard:  # also changes the link's content
        shard.write(b"0")
    assert stage(*"abc") == ["clip-a", "clip-b", "clip-c"]


def test_without_hard_links_clips_are_done_again(stage, monkeypatch, capsys):
    stage(*"abc")

    def refuse(source, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    assert stage(*"ab") == []
    said = "runs/preprocess-mead-earlier cannot hold hard links"
    assert capsys.readouterr().err.count(said) == 1
    assert stage(*"ab") == ["clip-a", "clip-b"]


def test_without_hard_links_a_crash_is_remembered(corpus, tmp_path, monkeypatch):
    table, raw = corpus

    def pool(work, jobs, workers, label, give_up):
        for job in jobs:
            give_up(job, "SIGSEGV; again alone: SIGSEGV") if job[0]["clip_id"] == "clip-b" else work(job)
        return 0

    def refuse(source, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(scheduler, "run_local", pool)
    monkeypatch.setattr(os, "link", refuse)
    args = (table, raw, tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs", tmp_path / "links")
    assert run_preprocess(*args)["newly_crashed"] == 1
    shutil.rmtree(tmp_path / "out")
    stop_after_crashes(run_preprocess(*args))


def test_leftovers_of_killed_runs_go(corpus, tmp_path):
    table, raw = corpus
    args = (table, raw, tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs", tmp_path / "links")
    summary = run_preprocess(*args)
    before = {path.name for path in tmp_path.iterdir()}
    for name in (".out-being-written", ".links-being-written", "runs", ".out-2-being-written"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".shard-000000-abcdefgh.tar").touch()
    (tmp_path / ".runs-ledger-abcd_123.json").touch()
    (tmp_path / ".runs-ledger-2-abcdefgh.json").touch()
    assert run_preprocess(*args) == summary
    others = {".out-2-being-written", ".runs-ledger-2-abcdefgh.json"}  # not its own
    assert {path.name for path in tmp_path.iterdir()} == before | others
    assert len(pd.read_parquet(tmp_path / "out/kept.parquet")) == 3
