"""Independent public implementations that tests compare with; the library never imports them.

`make test` installs them without their dependencies beside the environment (`tests/oracles.txt`), where
nothing else finds them.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import pytest

FOLDER = Path(sys.prefix) / "oracles"


def oracle(package: str, module: str) -> types.ModuleType:
    """Return `package.module` without running the `__init__` of its packages, which want far more than it."""
    if not (FOLDER / package).is_dir():
        pytest.skip(f"{package} is not in {FOLDER}; `make test` installs tests/oracles.txt there")
    path = FOLDER
    for name in [package, *(f"{package}.{part}" for part in _parents(module))]:
        path = FOLDER / name.replace(".", "/")
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [str(path)]
    return importlib.import_module(f"{package}.{module}")


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]
