"""Golden numbers of the official inference code, see `parity/vectors/README.md`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from hashed_tensors import hashed_weight
from safetensors.torch import load_file

VECTORS = Path(__file__).parent / "parity" / "vectors"


@dataclass
class Vectors:
    """One golden file: its description and its tensors `in.*`, `out.*`, `grad.*`, `weights.*`."""

    meta: dict
    tensors: dict[str, torch.Tensor]

    def __getitem__(self, name: str) -> torch.Tensor:
        value = self.tensors[name]
        return value.float() if value.dtype == torch.float16 else value

    def weights(self, prefix: str = "") -> dict[str, torch.Tensor]:
        prefix = f"weights.{prefix}"
        return {k.removeprefix(prefix): v.float() for k, v in self.tensors.items() if k.startswith(prefix)}

    def starting_with(self, prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def read_meta(name: str, folder: Path = VECTORS) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def load_vectors(name: str, folder: Path = VECTORS) -> Vectors:
    """Read a golden file; weights that are listed in its description instead of stored are computed."""
    meta = read_meta(name, folder)
    tensors = load_file(folder / f"{name}.safetensors")
    for group in meta.get("hashed_weights", []):
        for key, shape in group["shapes"].items():
            weight = hashed_weight(group["hashed_as"] + key, shape, group["seed"])
            tensors[f"weights.{group['prefix']}{key}"] = weight
    return Vectors(meta, tensors)
