"""Golden numbers of the official inference code; see `reference/README.md` in the shared test data."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

torch.set_num_threads(1)


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


@pytest.fixture(scope="session")
def reference_dir(shared_dir: Path) -> Path:
    folder = shared_dir / "reference"
    if not folder.is_dir():
        pytest.skip(f"golden vectors not found at {folder}")
    return folder


@pytest.fixture(scope="session")
def vectors(reference_dir: Path) -> Callable[[str], Vectors]:
    def load(name: str) -> Vectors:
        meta = json.loads((reference_dir / "vectors" / f"{name}.json").read_text())
        return Vectors(meta, load_file(reference_dir / "vectors" / f"{name}.safetensors"))

    return load


@pytest.fixture(scope="session")
def contract(reference_dir: Path) -> Callable[[str], dict[str, tuple[int, ...]]]:
    """Full-size state-dict names and shapes of one official checkpoint."""

    def load(name: str) -> dict[str, tuple[int, ...]]:
        tensors = json.loads((reference_dir / "contracts" / f"{name}.json").read_text())["tensors"]
        return {key: tuple(shape) for key, shape in tensors.items()}

    return load


@pytest.fixture(scope="session")
def golden(reference_dir: Path) -> ModuleType:
    """The generator of weights and inputs that are not stored."""
    spec = importlib.util.spec_from_file_location("golden", reference_dir / "golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def close(actual: torch.Tensor, expected: torch.Tensor, rtol: float = 1e-4, atol: float = 2e-5) -> None:
    """Compare at the tolerance the reference states for modules."""
    torch.testing.assert_close(actual.float(), expected.float(), rtol=rtol, atol=atol)


@pytest.fixture(name="close", scope="session")
def close_fixture() -> Callable[..., None]:
    return close
