"""What `dvc.lock` says about a stage: whether DVC has taken in what a run left behind.

Between the end of a stage and its entry in `dvc.lock`, DVC copies results, which may take minutes. Killed in
between, it runs the stage again, so the work of a run has to outlast the run until the entry is there.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

from dicetalk.runs.declaration import Declaration

LOCK = Path("dvc.lock")
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")  # as DVC writes it


def lock_entry(name: str, lock: Path = LOCK) -> dict[str, Any]:
    """Return the entry of a stage, empty where DVC has recorded nothing that can be read."""
    try:
        content = yaml.load(lock.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return content["stages"].get(name, {})
    except (FileNotFoundError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return {}


def entry_digest(name: str, lock: Path = LOCK) -> str:
    """Return the hex sha256 of a stage's entry, to see whether it has changed."""
    return hashlib.sha256(json.dumps(lock_entry(name, lock), sort_keys=True).encode()).hexdigest()


def is_as_recorded(declaration: Declaration, lock: Path = LOCK) -> bool:
    """Return whether the outputs look like those that the entry has: then it will not change.

    Files are compared by their md5, folders by the size and number of their files.
    """
    recorded = {out["path"]: out for out in lock_entry(declaration.name, lock).get("outs", [])}
    return all(out in recorded and _looks_like(Path(out), recorded[out]) for out in declaration.outs)


def is_recorded(declaration: Declaration, lock: Path = LOCK) -> bool:
    """Return whether the entry is whole: it names every output, those that are there as they are.

    DVC deletes the outputs of a stage before it runs it again; what is not there contradicts nothing. So a
    file that was cut is told by its end, or by an entry without all of its hash and size.
    """
    recorded = {out["path"]: out for out in lock_entry(declaration.name, lock).get("outs", [])}
    named = all(_is_whole(recorded.get(out, {})) for out in declaration.outs)
    if not named or not lock.read_bytes().endswith(b"\n"):
        return False
    there = [out for out in declaration.outs if Path(out).exists()]
    return all(_looks_like(Path(out), recorded[out]) for out in there)


def _is_whole(recorded: dict[str, Any]) -> bool:
    return bool(MD5.fullmatch(str(recorded.get("md5")))) and "size" in recorded


def _looks_like(path: Path, recorded: dict[str, Any]) -> bool:
    if path.is_file():
        with open(path, "rb") as stream:
            return hashlib.md5(stream.read(), usedforsecurity=False).hexdigest() == recorded.get("md5")
    sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    return (sum(sizes), len(sizes)) == (recorded.get("size"), recorded.get("nfiles"))
