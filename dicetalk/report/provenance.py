"""What ran, from which sources, on which machine, for how long."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dicetalk import __version__
from dicetalk.config import PARAMS_FILE
from dicetalk.files import read_json, sha256_file
from dicetalk.tracking.runs import git_commit

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


@dataclass(frozen=True)
class StageCost:
    """What a stage took, its instances together: seconds, and resident memory of its largest process."""

    seconds: float
    peak_memory_gib: float


def stage_costs(folder: Path) -> dict[str, StageCost]:
    """Return what each stage last took; stages that left no note are absent."""
    notes: dict[str, list[dict[str, float]]] = {}
    for path in sorted(folder.glob("*.json")):
        notes.setdefault(path.stem.partition("@")[0], []).append(read_json(path))
    return {
        name: StageCost(sum(n["seconds"] for n in found), max(n["peak_memory_gib"] for n in found))
        for name, found in notes.items()
    }


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
