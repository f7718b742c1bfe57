"""Which corpora a run uses, and which of them have emotion labels: `data/corpora.json`.

Stages that read several corpora depend on this file: they run again when `index` names other corpora, and
not for any other edit of it. Names are in alphabetical order, because DVC does not see the order of keys in
`params.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dicetalk.errors import DicetalkError
from dicetalk.files import read_json, write_json

IN_USE = Path("data/corpora.json")


def write_in_use(is_emotional: Mapping[str, bool]) -> None:
    """Write which of the named corpora are emotional."""
    sides = {
        side: sorted(name for name, emotional in is_emotional.items() if emotional == (side == "emotional"))
        for side in ("emotional", "regular")
    }
    write_json(IN_USE, sides)


def emotional_folders(parent: Path) -> list[Path]:
    """Return the folders of the emotional corpora below `data/encoded` or `data/processed`.

    Raises:
        DicetalkError: when the stage that names them has not run.
    """
    return [parent / name for name in _read()["emotional"]]


def all_folders(parent: Path) -> list[Path]:
    """Return the folders of all corpora likewise, the emotional ones first."""
    return [parent / name for side in ("emotional", "regular") for name in _read()[side]]


def _read() -> dict[str, list[str]]:
    if not IN_USE.is_file():
        raise DicetalkError(f"{IN_USE} does not exist; run `dvc repro corpora`.")
    return read_json(IN_USE)
