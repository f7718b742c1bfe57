"""Latents are stored scaled, and a portrait is conditioned on without the scale."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from dicetalk.models.backbones.files.svd import FrameCodec


def test_frames_are_scaled_and_portraits_are_not() -> None:
    pixels = torch.linspace(-1, 1, 12).reshape(1, 3, 2, 2)
    autoencoder = SimpleNamespace(
        device="cpu",
        dtype=torch.float32,
        config=SimpleNamespace(scaling_factor=0.25),
        encode=lambda x: SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: 8 * x)),
    )
    codec = FrameCodec(autoencoder)
    assert torch.equal(codec.encode(pixels), 2 * pixels)
    assert torch.equal(codec.portrait(codec.encode(pixels)), 8 * pixels)
