"""Training settings with a few values changed, whether they say what is trained or how."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from dicetalk.config import Training, TrainingCompute, load_params

COMPUTE = load_params(Path(__file__).parents[1] / "profiles/demo.yaml").compute.train_embedder
Compute = TypeVar("Compute", bound=TrainingCompute)


def changed(settings: Training, compute: Compute, **changes: object) -> tuple[Training, Compute]:
    """Return both with `changes`, each validated and put where it belongs."""
    how = {name: value for name, value in changes.items() if name in type(compute).model_fields}
    what = {name: value for name, value in changes.items() if name not in how}
    return (
        Training.model_validate(settings.model_dump() | what),
        type(compute).model_validate(compute.model_dump() | how),
    )
