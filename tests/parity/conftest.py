"""Golden numbers of the official inference code: those of `vectors/`, and the full ones where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from golden_vectors import VECTORS, Vectors, load_vectors, read_meta
from shared_data import SHARED

torch.set_num_threads(1)

FULL_VECTORS = SHARED / "reference" / "vectors"
FOLDERS = {"cut": VECTORS, "full": FULL_VECTORS}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator:
    """Fail what is skipped here: all it needs is in the repository. Only a `skipif` mark may skip."""
    report = yield
    if report.skipped and not item.get_closest_marker("skipif"):
        report.outcome, report.longrepr = "failed", f"a comparison was skipped: {report.longrepr}"
    return report


CHOSEN = ["cut"] + ([pytest.param("full", marks=pytest.mark.slow)] if FULL_VECTORS.is_dir() else [])


@pytest.fixture(scope="session", params=CHOSEN)
def vectors(request: pytest.FixtureRequest) -> Callable[[str], Vectors]:
    """Read a golden file by its name; tests run once for each folder, slow ones for the full numbers."""
    return lambda name: load_vectors(name, FOLDERS[request.param])


@pytest.fixture(scope="session")
def contract() -> Callable[[str], dict[str, tuple[int, ...]]]:
    """Full-size state-dict names and shapes of one official checkpoint."""

    def load(name: str) -> dict[str, tuple[int, ...]]:
        tensors = read_meta(f"contracts/{name}")["tensors"]
        return {key: tuple(shape) for key, shape in tensors.items()}

    return load


def close(actual: torch.Tensor, expected: torch.Tensor, rtol: float = 1e-4, atol: float = 2e-5) -> None:
    """Compare at the tolerance the reference states for modules."""
    torch.testing.assert_close(actual.float(), expected.float(), rtol=rtol, atol=atol)


@pytest.fixture(name="close", scope="session")
def close_fixture() -> Callable[..., None]:
    return close
