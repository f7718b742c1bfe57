"""Tests of the champion decision, and of registering without any Prefect server."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dicetalk.config import Retrain, load_params
from dicetalk.errors import DicetalkError
from dicetalk.tracking.runs import pipeline_run
from dicetalk.tracking.server import connect
from pipelines import reproduce as reproduce_module
from pipelines import retrain as retrain_module
from pipelines.dvc import StageError, TransientError
from pipelines.reproduce import is_transient, metric_table
from pipelines.retrain import Score, decide, score

RULE = Retrain(cron="0 3 * * 0", metric="ours.emotion_accuracy", higher_is_better=True, tolerance=0.02)
CHAMPION = Score("ours.emotion_accuracy", 0.70, "p", "m1")
CHALLENGER = Score("ours.emotion_accuracy", 0.69, "p", "m2")


@pytest.mark.parametrize(
    ("challenger", "champion", "promote", "reason"),
    [
        (CHALLENGER, None, True, "first"),
        (CHALLENGER, CHAMPION, True, "Not worse"),
        (replace(CHALLENGER, value=0.67), CHAMPION, False, "Worse"),
        (replace(CHALLENGER, protocol="q"), CHAMPION, False, "Not comparable"),
        (replace(CHALLENGER, metric="ours.fd_image"), CHAMPION, False, "Not comparable"),
        (replace(CHALLENGER, model="m1"), CHAMPION, False, "identical"),
    ],
)
def test_decision(challenger: Score, champion: Score | None, promote: bool, reason: str) -> None:
    decision = decide(challenger, champion, RULE)
    assert decision.promote is promote
    assert reason in decision.reason


def test_lower_can_be_better() -> None:
    rule = RULE.model_copy(update={"higher_is_better": False})
    assert decide(replace(CHALLENGER, value=0.5), CHAMPION, rule).promote
    assert not decide(replace(CHALLENGER, value=0.9), CHAMPION, rule).promote


def test_score_depends_on_network_split_and_model(evaluation: dict, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("1")
    first = score(evaluation, "ours.emotion_accuracy", model)
    assert (first.metric, first.value) == ("ours.emotion_accuracy", 0.7)
    assert Score.from_tags(first.tags()) == first
    (model / "weights").write_text("2")
    evaluation["networks"]["emotion_accuracy"]["sha256"] = "1"
    second = score(evaluation, "ours.emotion_accuracy", model)
    assert second.model != first.model and second.protocol != first.protocol
    with pytest.raises(DicetalkError, match="real.sync_c"):
        score(evaluation, "ours.nothing", model)


def test_metrics_are_tabled(evaluation: dict) -> None:
    assert metric_table(evaluation)[0] == {
        "system": "ours",
        "emotion_accuracy": "0.700 [0.600, 0.800]",
        "sync_c": "",
    }


def test_only_transient_failures_are_retried() -> None:
    class State:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def result(self, raise_on_failure: bool) -> Exception:
            return self.error

    assert is_transient(None, None, State(TransientError("network")))
    assert not is_transient(None, None, State(StageError("out of memory")))


def test_flow_registers_and_moves_the_alias(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole retrain logic on the toy pipeline: real MLflow and DVC, Prefect's decorators taken off."""
    monkeypatch.setattr(reproduce_module, "run_stage", reproduce_module.run_stage.fn)
    monkeypatch.setattr(reproduce_module, "publish_artifacts", lambda: None)
    monkeypatch.setattr(retrain_module, "reproduce", reproduce_module.reproduce.fn)
    monkeypatch.setattr(retrain_module, "register", retrain_module.register.fn)
    monkeypatch.setattr(retrain_module, "create_markdown_artifact", lambda *_, **__: None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run_with(seed: int) -> retrain_module.Decision:
        text = Path("params.yaml").read_text()
        Path("params.yaml").write_text(re.sub("^  seed: .*", f"  seed: {seed}", text, flags=re.MULTILINE))
        decision = retrain_module.retrain.fn()
        Path("params.yaml").write_text(text)
        return decision

    client, _ = connect(load_params().tracking)
    assert run_with(7).reason.startswith("The first")
    assert client.get_registered_model("dicetalk").aliases == {"champion": 1}
    assert "identical" in run_with(7).reason
    assert run_with(3).reason.startswith(
        "Worse: ours.emotion_accuracy = 0.3000 against the champion's 0.7000"
    )
    assert client.get_registered_model("dicetalk").aliases == {"champion": 1}
    assert run_with(8).promote
    assert client.get_registered_model("dicetalk").aliases == {"champion": 3}
    version = client.get_model_version_by_alias("dicetalk", "champion")
    run = client.get_run(version.run_id)
    assert run.data.metrics["ours.emotion_accuracy"] == 0.8 and run.info.status == "FINISHED"
    assert run.data.tags["dicetalk.champion_decision"] == version.description
    artifacts = Path(version.source.removeprefix("file://"))
    assert (artifacts / "weights.safetensors").read_text() == "model of seed 8"


def test_failing_stage_fails_the_parent_run(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("toy_stage.py").write_text("raise SystemExit('bad')")
    tracking = load_params().tracking
    with pytest.raises(StageError), pipeline_run(tracking, "p") as tracker:
        reproduce_module.run_stage.fn("train")
    assert connect(tracking)[0].get_run(tracker.run_id).info.status == "FAILED"
