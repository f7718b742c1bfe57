"""The pretrained image-to-video model that training starts from, in diffusers' directory layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from torch import nn
from transformers import CLIPVisionModelWithProjection

from dicetalk.errors import DicetalkError
from dicetalk.files import read_json
from dicetalk.models.autoencoder import PatchAutoencoder

COMPONENT_CLASSES = {
    "vae": (PatchAutoencoder, AutoencoderKLTemporalDecoder, AutoencoderKL),
    "image_encoder": (CLIPVisionModelWithProjection,),
    "unet": (UNetSpatioTemporalConditionModel,),
}


def load_component(backbone: Path, name: str) -> nn.Module:
    """Load one network of a backbone in float32 and eval mode.

    Args:
        backbone: `models/backbone`.
        name: `vae`, `image_encoder` or `unet`.

    Raises:
        DicetalkError: when the component is missing or of a class this project does not know.
    """
    config = component_config(backbone, name)
    found = config.get("_class_name") or config.get("architectures", ["nothing"])[0]
    known = {cls.__name__: cls for cls in COMPONENT_CLASSES[name]}
    if found not in known:
        raise DicetalkError(f"{backbone / name} holds {found}; expected {' or '.join(known)}.")
    variant = "fp16" if any((backbone / name).glob("*.fp16.safetensors")) else None
    module = known[found].from_pretrained(
        backbone / name, torch_dtype=torch.float32, variant=variant, use_safetensors=True
    )
    return module.eval()


def component_config(backbone: Path, name: str) -> dict[str, Any]:
    """Return the configuration of one network of a backbone."""
    return read_json(Path(backbone) / name / "config.json")
