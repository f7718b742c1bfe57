"""What ran, from which sources, on which machine, for how long."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from dicetalk import __version__
from dicetalk.config import PARAMS_FILE
from dicetalk.files import read_json, sha256_file
from dicetalk.tracking import git_commit

PACKAGES = ("torch", "diffusers", "transformers", "numpy", "opencv-python-headless", "av")
SOURCES = ("dicetalk", "stages", "dvc.yaml", "params.yaml")


def provenance() -> dict[str, str]:
    """Return what a reader needs to run the same again."""
    changed = _git("status", "--porcelain", "--", *SOURCES)
    return {
        "dicetalk": __version__,
        "git commit": git_commit() + (" with uncommitted changes" if changed else ""),
        "params.yaml": f"sha256 {sha256_file(PARAMS_FILE)[:16]}",
        "machine": _machine(),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def stage_seconds(folder: Path) -> dict[str, float]:
    """Return how long each stage last took, its instances added up; stages that left no note are absent."""
    totals: dict[str, float] = {}
    for path in sorted(folder.glob("*.json")):
        name = path.stem.partition("@")[0]
        totals[name] = totals.get(name, 0.0) + read_json(path)["seconds"]
    return totals


def _machine() -> str:
    import torch

    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    accelerators = ", ".join(gpus) if gpus else "no GPU"
    return f"{os.cpu_count()} CPU cores, {memory_gib:.0f} GiB memory, {accelerators}"


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
