"""Families of backbones, by the name that `backbone.json` in a backbone's folder gives."""

from __future__ import annotations

from pathlib import Path

from dicetalk.errors import DicetalkError
from dicetalk.files import read_json
from dicetalk.models.backbones.files.base import BackboneFiles
from dicetalk.models.backbones.files.svd import SvdFiles

FAMILY_FILE = "backbone.json"  # {"family": NAME}
WITHOUT_FILE = "svd"  # Stable Video Diffusion as it is published, and the demo's backbone

FILES: dict[str, BackboneFiles] = {
    "svd": SvdFiles(),
}


def family_name(folder: Path) -> str:
    """Return the name of a backbone's family.

    Raises:
        DicetalkError: for a family this project does not know.
    """
    path = Path(folder) / FAMILY_FILE
    name = read_json(path).get("family") if path.is_file() else WITHOUT_FILE
    if name not in FILES:
        raise DicetalkError(f"{path} names family {name!r}; expected {' or '.join(FILES)}.")
    return name


def files_of(folder: Path) -> BackboneFiles:
    """Return what reads a backbone's folder; raises as `family_name`."""
    return FILES[family_name(folder)]
