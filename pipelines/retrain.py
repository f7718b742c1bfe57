"""Scheduled retraining with a champion and a challenger.

Reproduces the pipeline, registers the resulting model in MLflow, and moves the alias `champion` to it only if
it is not worse on the fixed test split. The reason is logged either way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from dicetalk.config import Params, Retrain, config_hash, load_params
from dicetalk.errors import DicetalkError
from dicetalk.files import read_json, sha256_file
from dicetalk.tracking.server import connect

from .reproduce import EVALUATION, reproduce

MODEL = Path("models/dicetalk")
ALIAS = "champion"


@dataclass(frozen=True)
class Score:
    """What a model version is judged by; stored as tags of the version.

    Attributes:
        metric: `<system>.<metric>` of `metrics/evaluate.json`.
        value: its value on the test split.
        protocol: hash of how it was measured; values with different hashes cannot be compared.
        model: hash of the model's files.
    """

    metric: str
    value: float
    protocol: str
    model: str

    def tags(self) -> dict[str, str]:
        """Return the tags of a model version with this score."""
        return {
            "metric": self.metric,
            "value": repr(self.value),
            "protocol": self.protocol,
            "model": self.model,
        }

    @classmethod
    def from_tags(cls, tags: dict[str, str]) -> Score:
        """Read the score of a registered version."""
        return cls(tags["metric"], float(tags["value"]), tags["protocol"], tags["model"])


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes champion, and why."""

    promote: bool
    reason: str


def score(evaluation: dict[str, Any], metric: str, model: Path) -> Score:
    """Read the deciding metric of the model that was just evaluated.

    Raises:
        DicetalkError: when `metrics/evaluate.json` has no such metric.
    """
    system, _, name = metric.partition(".")
    try:
        entry = evaluation["systems"][system][name]
    except KeyError:
        known = ", ".join(f"{s}.{m}" for s, metrics in evaluation["systems"].items() for m in metrics)
        raise DicetalkError(f"retrain.metric is {metric!r}, but {EVALUATION} has only: {known}.") from None
    # Another network, test split or frame count gives another number for the same model.
    protocol = config_hash(evaluation["protocol"], evaluation["networks"].get(name), entry["n"])
    return Score(metric, float(entry["value"]), protocol, _sha256_directory(model))


def decide(challenger: Score, champion: Score | None, retrain: Retrain) -> Decision:
    """Compare a challenger with the champion, if there is one."""
    found = f"{challenger.metric} = {challenger.value:.4f}"
    if champion is None:
        return Decision(True, f"The first registered model becomes champion with {found}.")
    if champion.model == challenger.model:
        return Decision(False, f"The model is identical to the champion ({found}); nothing to decide.")
    if (champion.metric, champion.protocol) != (challenger.metric, challenger.protocol):
        return Decision(
            False,
            f"Not comparable: champion judged by {champion.metric} under protocol {champion.protocol}, "
            f"challenger by {challenger.metric} under {challenger.protocol} (another test split, evaluation "
            "network or setting). Evaluate the champion the same way, or move the alias by hand.",
        )
    gain = challenger.value - champion.value
    loss = -gain if retrain.higher_is_better else gain
    compared = f"{found} against the champion's {champion.value:.4f}, tolerance {retrain.tolerance:g}"
    if loss > retrain.tolerance:
        return Decision(False, f"Worse: {compared}; the champion stays.")
    return Decision(True, f"Not worse: {compared}; the challenger becomes champion.")


@task(cache_policy=NO_CACHE, log_prints=True)
def register(run_id: str, params: Params) -> Decision:
    """Register the model of an MLflow run, and move the alias when it is not worse than the champion."""
    from mlflow.exceptions import MlflowException

    client, _ = connect(params.tracking)
    name = params.tracking.registered_model
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    champion_version = client.get_registered_model(name).aliases.get(ALIAS)
    champion = (
        Score.from_tags(client.get_model_version(name, champion_version).tags) if champion_version else None
    )
    challenger = score(read_json(EVALUATION), params.retrain.metric, MODEL)
    decision = decide(challenger, champion, params.retrain)
    if champion is None or champion.model != challenger.model:
        client.log_artifacts(run_id, str(MODEL), "model")
        source = f"{client.get_run(run_id).info.artifact_uri}/model"
        version = client.create_model_version(
            name, source, run_id, tags=challenger.tags(), description=decision.reason
        ).version
        print(f"Registered {name} version {version}")
        if decision.promote:
            client.set_registered_model_alias(name, ALIAS, version)
    client.set_tag(run_id, "dicetalk.champion_decision", decision.reason)
    return decision


@flow(name="retrain", log_prints=True)
def retrain() -> Decision:
    """Reproduce, register, and decide about the champion.

    Raises:
        DicetalkError: when tracking is switched off, because the champion lives in MLflow's registry.
    """
    params = load_params()
    run_id = reproduce()
    if run_id is None:
        raise DicetalkError("retrain needs MLflow's model registry; set tracking.uri, e.g. to sqlite.")
    decision = register(run_id, params)
    print(decision.reason)
    create_markdown_artifact(decision.reason, key="champion-decision")
    return decision


def _sha256_directory(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256_file(path)}\n".encode())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    retrain()
