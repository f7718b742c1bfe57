"""Training of the in-domain metric networks on the real clips of the training split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicetalk.compute.precision import compute_device, fixed_threads
from dicetalk.config import Evaluators, TrainingCompute
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.clips import load_processed
from dicetalk.evaluation.networks import SIZE_PX
from dicetalk.evaluation.store import save_network
from dicetalk.files import atomic_directory, sha256_file
from dicetalk.tracking.tracker import Tracker
from dicetalk.training.checkpoint import write_curves
from dicetalk.training.evaluator_objectives import (
    EmotionObjective,
    IdentityObjective,
    SecondEmotionObjective,
    SyncObjective,
)
from dicetalk.training.loop import train
from dicetalk.training.timings import TIMINGS

OBJECTIVES: dict[str, type] = {
    "emotion": EmotionObjective,
    "emotion_second": SecondEmotionObjective,
    "identity": IdentityObjective,
    "sync": SyncObjective,
}


@fixed_threads()  # but for the networks, whose number `train` sets
def train_evaluators(
    settings: Evaluators,
    compute: TrainingCompute,
    folders: Sequence[Path],
    out: Path,
    run_dir: Path,
    tracker: Tracker | None = None,
) -> dict[str, Any]:
    """Train the emotion, second emotion, identity and sync networks and write them to `out`.

    Args:
        settings: the `evaluators` section.
        compute: its part of `compute`.
        folders: `data/processed/<set>` folders; their training split is learnt, their test split validates.
        out: folder for weights, configurations and curves.
        run_dir: where each training has a folder, from which it resumes.
        tracker: receives the curves, named `<kind>/...`.

    Returns:
        `{kind: {"name", "sha256", validation metrics...}}`.

    Raises:
        DicetalkError: for `source: published`, or data that a network cannot be trained on.
    """
    if settings.source == "published":
        raise DicetalkError(
            "evaluators.source: published networks (Inception, I3D, SyncNet...) are not trained; set "
            "evaluate.protocol: paper to use them, and evaluators.source: in-domain."
        )
    train_clips = load_processed(folders, "train", SIZE_PX)
    test_clips = load_processed(folders, "test", SIZE_PX)
    results = {}
    with atomic_directory(out) as folder:
        for kind, objective_class in OBJECTIVES.items():
            training = getattr(settings, kind)
            objective = objective_class(train_clips, test_clips, training.seed)
            objective.network.to(compute_device())
            named = tracker and _NamedTracker(tracker, kind)
            metrics = train(objective, training, compute, run_dir / kind, named, f"evaluator {kind}")
            validation = {name: value for name, value in metrics.items() if name not in TIMINGS}
            network = objective.network.cpu()
            path = save_network(folder, kind, network)
            write_curves(run_dir / kind, folder / f"{kind}_curves.csv")
            results[kind] = {"name": network.name, "sha256": sha256_file(path), **validation}
    return results


@dataclass(frozen=True)
class _NamedTracker(Tracker):
    tracker: Tracker
    kind: str

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        self.tracker.log_metrics({f"{self.kind}/{name}": value for name, value in metrics.items()}, step)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        self.tracker.log_artifact(path, f"{self.kind}/{folder}")
