"""Metric networks on disk: `<kind>.safetensors` and, in `<kind>.json`, what rebuilds the module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.gradients import GradientEmotionNet
from dicetalk.evaluation.networks import FrameEmotionNet, IdentityNet
from dicetalk.evaluation.syncnet import InDomainSyncNet
from dicetalk.files import atomic_path, read_json, sha256_file, write_json

CLASSES: dict[str, type[nn.Module]] = {
    "emotion": FrameEmotionNet,
    "emotion_second": GradientEmotionNet,
    "identity": IdentityNet,
    "sync": InDomainSyncNet,
}


@dataclass(frozen=True)
class MetricNetwork:
    """A loaded network, with the name and the sha256 of the weights that are reported next to its numbers."""

    module: nn.Module
    name: str
    sha256: str


def save_network(folder: Path, kind: str, network: nn.Module) -> Path:
    """Write a network of one of the `CLASSES` and return the path of its weights."""
    from safetensors.torch import save_file

    path = Path(folder) / f"{kind}.safetensors"
    with atomic_path(path) as temporary:
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, temporary)
    write_json(path.with_suffix(".json"), {"name": network.name, **network.config})
    return path


def load_network(folder: Path, kind: str) -> MetricNetwork:
    """Load a network in evaluation mode.

    Raises:
        DicetalkError: when it is missing or its name is not the one this version knows.
    """
    from safetensors.torch import load_file

    path = Path(folder) / f"{kind}.safetensors"
    if not path.is_file():
        raise DicetalkError(
            f"{path} does not exist; run `dvc repro evaluators`, or give the folder that holds it."
        )
    config = read_json(path.with_suffix(".json"))
    name = config.pop("name")
    if name != CLASSES[kind].name:
        raise DicetalkError(
            f"{path} holds {name!r}, this version reads {CLASSES[kind].name!r}; train the evaluators again."
        )
    module = CLASSES[kind](**config)
    module.load_state_dict(load_file(path))
    return MetricNetwork(module.eval(), name, sha256_file(path))
