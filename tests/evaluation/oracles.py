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
    """Return `package.module` without running the `__init__` of its packages, which want far more than it.

    Nothing of it stays importable: other libraries behave differently when they find these packages.
    """
    if not (FOLDER / package).is_dir():
        pytest.skip(f"{package} is not in {FOLDER}; `make test` installs tests/oracles.txt there")
    before = set(sys.modules)
    sys.path.append(str(FOLDER))
    try:
        parts = [package, *module.split(".")]
        for name in (".".join(parts[:count]) for count in range(1, len(parts))):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [str(FOLDER / name.replace(".", "/"))]
        return importlib.import_module(f"{package}.{module}")
    finally:
        sys.path.remove(str(FOLDER))
        for name in set(sys.modules) - before:
            if FOLDER in Path(getattr(sys.modules[name], "__file__", None) or FOLDER / "x").parents:
                del sys.modules[name]
