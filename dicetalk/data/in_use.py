"""Which corpora a run uses, and which of them have emotion labels: `data/corpora.json`.

Stages that read several corpora depend on this file, so that they run again when `index` names other corpora,
and not for any other edit of it.
"""

from __future__ import annotations

from pathlib import Path

from dicetalk.errors import DicetalkError
from dicetalk.files import read_json, write_json

IN_USE = Path("data/corpora.json")


def write_in_use(corpora: list[str], emotional: list[str]) -> None:
    """Write the names of all corpora, in the order of `index`, and of the emotional ones among them."""
    write_json(IN_USE, {"corpora": corpora, "emotional": emotional})


def emotional_folders(parent: Path) -> list[Path]:
    """Return the folders of the emotional corpora below `data/encoded` or `data/processed`, in order.

    Raises:
        DicetalkError: when the stage that names them has not run.
    """
    if not IN_USE.is_file():
        raise DicetalkError(f"{IN_USE} does not exist; run `dvc repro corpora`.")
    return [parent / name for name in read_json(IN_USE)["emotional"]]
