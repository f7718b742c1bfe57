"""Which runs a set of variants and seeds makes, their parameters, and when an old result is still good."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicetalk.config import Params, config_hash, parse_params
from dicetalk.errors import DicetalkError
from dicetalk.files import sha256_file
from dicetalk.report.graph import Stage, load_yaml, read_stages

from .variants import VARIANTS

TARGET = "evaluate"  # the last stage of a run
# What a seed changes: initial weights, batches and noise of everything trained anew, the noise of the videos
# and which test clips they are made for. Data, metric networks and resamples stay: runs are comparable.
SEEDS = (
    "train_embedder.training.seed",
    "learn_bank.training.seed",
    "train_diffusion.training.seed",
    "generate.seed",
)
SEED_STEP = 1000  # seed 0 is the profile's own


@dataclass(frozen=True)
class Run:
    """One variant at one seed.

    Attributes:
        variant: name of the variant.
        seed: which seed.
        overrides: all that differs from `params.yaml`.
        params: the resulting parameters.
        base: fingerprint of everything else that decides about the result.
    """

    variant: str
    seed: int
    overrides: dict[str, Any]
    params: Params
    base: str

    @property
    def experiment(self) -> str:
        """Name of the DVC experiment; another result has another name."""
        return f"ablate-{self.variant}-{self.seed}-{config_hash(self.base, self.overrides)[:8]}"


def plan_runs(params: Params, variants: Sequence[str], seeds: Sequence[int], base: str) -> list[Run]:
    """Return the runs, all variants of a seed before the next seed, so that an early look compares.

    Raises:
        DicetalkError: for a variant that does not exist, or overrides that do not fit the parameters.
    """
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown:
        raise DicetalkError(f"Unknown variants: {', '.join(unknown)}; there are {', '.join(VARIANTS)}.")
    runs = []
    for seed in dict.fromkeys(seeds):
        for name in dict.fromkeys(variants):
            overrides = params.ablate.overrides | VARIANTS[name].overrides | seed_overrides(params, seed)
            where = f"params.yaml under ablate.overrides and the overrides of {name}"
            runs.append(Run(name, seed, overrides, override(params, overrides, where), base))
    return runs


def seed_overrides(params: Params, seed: int) -> dict[str, Any]:
    """Return the overrides that a seed means."""
    values = params.model_dump()
    return {key: _get(values, key) + SEED_STEP * seed for key in SEEDS}


def override(params: Params, overrides: Mapping[str, Any], where: str) -> Params:
    """Return parameters with other values; mappings are merged, as `dvc exp run --set-param` does.

    Args:
        params: the parameters.
        overrides: dotted key to value.
        where: names the origin of the overrides in errors.

    Raises:
        DicetalkError: for a key that does not exist or a value that does not fit.
    """
    values = params.model_dump()
    for key, value in overrides.items():
        *sections, name = key.split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise DicetalkError(f"{where}: {key}: {section} is a value, not a section with keys.")
        merged = isinstance(value, dict) and isinstance(target.get(name), dict)
        target[name] = target[name] | value if merged else value
    return parse_params(values, where)


def fingerprint(params: Params) -> str:
    """Return a hash of the code, the parameters and the raw data that results up to `TARGET` depend on.

    Code is what `dvc.yaml` names as dependencies and git knows; raw data what neither git nor a stage makes,
    by the hashes of `dvc.lock`.
    """
    stages = {s.name: s for s in read_stages(load_yaml(Path("dvc.yaml")), load_yaml(Path("params.yaml")))}
    needed = _up_to(stages, TARGET)
    files = _git_files(sorted({dep for name in needed for dep in stages[name].deps}))
    made = [out for stage in stages.values() for out in stage.outs]
    lock = load_yaml(Path("dvc.lock"))["stages"] if Path("dvc.lock").is_file() else {}
    raw = {
        dep["path"]: dep.get("md5", "")
        for name, entry in lock.items()
        if name.partition("@")[0] in needed
        for dep in entry.get("deps", [])
        if not any(path == dep["path"] or path.startswith(f"{dep['path']}/") for path in [*made, *files])
    }
    shown = params.model_dump(exclude={"ablate", "report", "retrain", "tracking"})
    return config_hash(shown, params.ablate.overrides, {path: sha256_file(Path(path)) for path in files}, raw)


def as_hydra(value: Any) -> str:
    """Return a value as `--set-param` reads it.

    Raises:
        DicetalkError: for a kind of value that parameters do not have.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str) and "\\" not in value:
        return "'" + value.replace("'", "\\'") + "'"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(as_hydra, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{as_hydra(item)}" for key, item in value.items()) + "}"
    raise DicetalkError(f"Cannot override a parameter with {value!r}, a {type(value).__name__}.")


def _up_to(stages: Mapping[str, Stage], target: str) -> set[str]:
    """Return a stage and all that it waits for.

    Raises:
        DicetalkError: when there is no such stage.
    """
    if target not in stages:
        raise DicetalkError(f"dvc.yaml has no stage {target!r}, which an ablation ends with.")
    return {target}.union(*(_up_to(stages, before) for before in stages[target].after))


def _git_files(paths: Sequence[str]) -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z", "--", *paths], capture_output=True, text=True, check=True)
    return sorted(path for path in done.stdout.split("\0") if path)


def _get(values: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values
