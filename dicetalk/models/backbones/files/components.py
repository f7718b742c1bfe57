"""The pretrained image-to-video model that training starts from, in diffusers' directory layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from dicetalk.files import read_json
from dicetalk.models.backbones.files.base import Codec
from dicetalk.models.backbones.files.table import files_of
from dicetalk.models.widths import Widths


def load_component(backbone: Path, name: str) -> nn.Module:
    """Load one network of a backbone in float32 and eval mode.

    Args:
        backbone: `models/backbone`.
        name: subfolder, for Stable Video Diffusion `vae`, `image_encoder` or `unet`.

    Raises:
        DicetalkError: when the component is missing or of a class this project does not know.
    """
    cls = component_class(backbone, name)
    variant = "fp16" if any((backbone / name).glob("*.fp16.safetensors")) else None
    module = cls.from_pretrained(
        backbone / name, torch_dtype=torch.float32, variant=variant, use_safetensors=True
    )
    return module.eval()


def component_class(backbone: Path, name: str) -> Any:
    """Return the class that the configuration of a network names; raises as `load_component`."""
    config = component_config(backbone, name)
    found = config.get("_class_name") or config.get("architectures", ["nothing"])[0]
    return files_of(backbone).known(name, found, backbone / name)


def component_config(backbone: Path, name: str) -> dict[str, Any]:
    """Return the configuration of one network of a backbone."""
    return read_json(Path(backbone) / name / "config.json")


def read_widths(backbone: Path) -> Widths:
    """Return the widths of a backbone's denoiser."""
    files = files_of(backbone)
    return files.widths(component_config(backbone, files.denoiser))


def load_codec(backbone: Path) -> Codec:
    """Load the autoencoder of a backbone; raises as `load_component`."""
    return files_of(backbone).codec(load_component(backbone, "vae"))
