"""Hashes of the files of a checkpoint, by which damage is noticed and named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dicetalk.files import sha256_file, write_json

MANIFEST = "manifest.json"
SHOWN_DIGITS = 12


def write_manifest(folder: Path) -> None:
    """Write the size and sha256 of each file of a folder, and the hash of that list, to `manifest.json`."""
    files = {
        path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }
    write_json(folder / MANIFEST, {"files": files, "sha256": _digest(files)})


def find_damage(folder: Path, names: Collection[str]) -> str | None:
    """Return which file of a folder is not what was written and why, or None.

    Args:
        folder: with a manifest.
        names: the files that it must hold.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files, expected = manifest["files"], manifest["sha256"]
        if _digest(files) != expected or files.keys() != set(names):
            return f"{path} is damaged (not what was written)"
        for name, entry in files.items():
            path = folder / name
            size = path.stat().st_size
            if size != entry["bytes"]:
                return f"{path} is damaged ({size} bytes instead of {entry['bytes']})"
            digest = sha256_file(path)
            if digest != entry["sha256"]:
                found, wanted = digest[:SHOWN_DIGITS], entry["sha256"][:SHOWN_DIGITS]
                return f"{path} is damaged (sha256 {found} instead of {wanted})"
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    except (ValueError, TypeError, KeyError):
        return f"{path} is damaged (no readable list of files)"
    return None


def _digest(files: Any) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
