"""A clip that crashes, also alone, is a rejection that nobody can overlook and that stops nobody for good."""

from __future__ import annotations

import pytest
from fake_face import COMPUTE, SETTINGS

from dicetalk.config import load_params
from dicetalk.data import scheduler
from dicetalk.data.index_table import write_index
from dicetalk.data.preprocess import run_preprocess, stop_after_crashes
from dicetalk.errors import DicetalkError
from dicetalk.files import read_json
from stages import preprocess, run

pytestmark = pytest.mark.usefixtures("squares_are_faces")
HOW = "SIGSEGV; again alone: SIGSEGV"


@pytest.fixture
def deadly(monkeypatch) -> set[str]:
    """Ids of the clips that crash; of the others, clip-a is done at the second try."""
    ids = {"clip-b"}

    def pool(work, jobs, workers, label, give_up):
        for job in jobs:
            give_up(job, HOW) if job[0]["clip_id"] in ids else work(job)
        return sum(job[0]["clip_id"] == "clip-a" for job in jobs)

    monkeypatch.setattr(scheduler, "run_local", pool)
    return ids


@pytest.fixture
def preprocess_again(corpus, tmp_path):
    table, raw = corpus
    return lambda: run_preprocess(table, raw, tmp_path / "out", SETTINGS, COMPUTE, tmp_path / "runs")


def test_a_crash_is_a_reason_with_details(preprocess_again, tmp_path, deadly, capsys):
    summary = preprocess_again()
    assert summary["reasons"] == {"crashed": 1, "no_face": 1, "unreadable": 1}
    assert f"clip-b,crashed,{HOW}\n" in (tmp_path / "out" / "rejected.csv").read_text()
    assert (summary["recovered"], summary["newly_crashed"]) == (1, 1)
    said = capsys.readouterr().err
    assert f"clip-b: {HOW}\n" in said and "1 clips crashed and were done at the second try" in said
    assert "WARNING: 1 clips are left out because they crash" in said


def test_what_was_recovered_does_not_change_the_output(preprocess_again, tmp_path, deadly):
    deadly.clear()
    assert preprocess_again()["recovered"] == 1
    counts = read_json(tmp_path / "out" / "summary.json")
    assert set(counts) == {"indexed", "kept", "rejected", "kept_seconds", "reasons"}


def test_crashes_are_tried_again_and_then_accepted(preprocess_again, deadly, worked_on):
    with pytest.raises(DicetalkError, match="1 of 5 clips crashed, also alone.*same command again"):
        stop_after_crashes(preprocess_again())
    worked_on.clear()
    deadly.add("clip-c")  # which is done and will not be tried
    again = preprocess_again()
    assert again["reasons"]["crashed"] == 1 and worked_on == []
    stop_after_crashes(again)
    deadly.clear()
    last = preprocess_again()
    stop_after_crashes(last)
    assert last["kept"] == 3 and worked_on == ["clip-b"]


def test_other_clips_that_crash_stop_the_stage_again(preprocess_again, corpus, deadly):
    preprocess_again()
    (corpus[1] / "c.mp4").write_bytes((corpus[1] / "a.mp4").read_bytes())
    deadly.add("clip-c")
    summary = preprocess_again()
    assert summary["reasons"]["crashed"] == 2 and summary["newly_crashed"] == 1


def test_the_stage_fails_once_with_everything_written(
    corpus, tmp_path, repository, monkeypatch, deadly, capsys
):
    table, raw = corpus
    write_index(table, raw, tmp_path / "data/index/mead.parquet")
    monkeypatch.chdir(tmp_path)
    params = load_params(repository / "profiles/smoke.yaml").model_copy(update={"preprocess": SETTINGS})
    monkeypatch.setattr(preprocess, "load_params", lambda: params)
    monkeypatch.setattr("sys.argv", ["preprocess", "--dataset", "mead"])
    with pytest.raises(SystemExit) as stopped:
        run(preprocess.main)
    assert stopped.value.code == 1 and "preprocess: 1 of 5 clips crashed" in capsys.readouterr().err
    metrics = read_json(tmp_path / "metrics/preprocess-mead.json")
    assert (metrics["kept"], metrics["recovered"], metrics["newly_crashed"]) == (2, 1, 1)
    run(preprocess.main)
    metrics = read_json(tmp_path / "metrics/preprocess-mead.json")
    assert (metrics["kept"], metrics["reasons"]["crashed"], metrics["newly_crashed"]) == (2, 1, 0)
