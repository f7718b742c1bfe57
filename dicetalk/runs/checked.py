"""Small notes of the program to itself, of which a damaged one is never believed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from dicetalk.files import write_json


def write_checked(path: Path, value: Any) -> None:
    """Write a value as JSON, with the sha256 of it."""
    write_json(path, {"sha256": _digest(value), "value": value})


def read_checked(path: Path) -> Any:
    """Return the value, or None when there is no such file or it is not what was written."""
    try:
        content = json.loads(path.read_bytes())
        return content["value"] if content["sha256"] == _digest(content["value"]) else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
