"""Put the trained networks and all that generating needs into one folder, `models/dicetalk/`."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import load_params
from dicetalk.release.package import package_model

from . import run


def main() -> None:
    """Read how inputs are prepared and how videos are sampled by default, and write `models/dicetalk/`."""
    package_model(load_params(), Path("models"), Path("models/dicetalk"))


if __name__ == "__main__":
    run(main)
