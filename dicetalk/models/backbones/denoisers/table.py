"""Denoisers of the families in `dicetalk.models.backbones.files.table`, by the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dicetalk.errors import DicetalkError
from dicetalk.models.backbones.denoisers.base import Denoiser
from dicetalk.models.backbones.denoisers.svd import SvdDenoiser
from dicetalk.models.backbones.files.components import load_component
from dicetalk.models.backbones.files.table import family_name, files_of

DENOISERS: dict[str, type[Denoiser]] = {
    "svd": SvdDenoiser,
}


def denoiser_class(backbone: Path) -> type[Denoiser]:
    """Return what trains a backbone's folder; raises as `registry.family_name`."""
    return DENOISERS[family_name(backbone)]


def load_denoiser(backbone: Path) -> Denoiser:
    """Return the denoiser that training starts from; raises as `load_component`."""
    return denoiser_class(backbone).from_pretrained(load_component(backbone, files_of(backbone).denoiser))


def denoiser_of(network: Any) -> Denoiser:
    """Return a network under the contract of its family.

    Raises:
        DicetalkError: when it belongs to none.
    """
    for cls in DENOISERS.values():
        if isinstance(network, cls.network_class):
            return cls(network)
    known = " or ".join(cls.network_class.__name__ for cls in DENOISERS.values())
    raise DicetalkError(f"The model has a {type(network).__name__}; expected {known}.")
