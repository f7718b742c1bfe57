"""The frozen encoders that a training without cached latents would run: autoencoder and image encoder.

The speech encoder is left out: whisper-tiny has 8 M parameters, a thousandth of what the others compute.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dicetalk.models.cost import CostMeter

# Configuration files of Stable Video Diffusion img2vid-xt
SVD_AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
}
SVD_IMAGE_ENCODER = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 1024,
    "hidden_act": "gelu",
}


@dataclass(frozen=True)
class EncoderCost:
    """Stable Video Diffusion's encoders in float32.

    Attributes:
        weight_bytes: of both.
        frame_flops: autoencoder, per frame.
        image_flops: image encoder, per reference image.
        activation_bytes: peak of one frame, without gradients.
    """

    weight_bytes: int
    frame_flops: int
    image_flops: int
    activation_bytes: int


def simulate_encoders(size_px: int) -> EncoderCost:
    """Simulate encoding one frame of `size_px` and one reference image."""
    with FakeTensorMode(), torch.no_grad():
        autoencoder = AutoencoderKLTemporalDecoder(**SVD_AUTOENCODER)
        image_encoder = CLIPVisionModelWithProjection(
            CLIPVisionConfig(**SVD_IMAGE_ENCODER, attn_implementation="eager")
        )
        frame, image = torch.rand(1, 3, size_px, size_px), torch.rand(1, 3, 224, 224)
        with CostMeter() as frame_cost:
            autoencoder.encode(frame)
        with CostMeter() as image_cost:
            image_encoder(image)
        modules = (autoencoder, image_encoder)
        weights = sum(p.nbytes for module in modules for p in module.parameters())
    return EncoderCost(weights, frame_cost.flops, image_cost.flops, frame_cost.peak_bytes)
