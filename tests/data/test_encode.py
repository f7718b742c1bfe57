"""Encoding: what is stored, and that features are free of the head's place, size and roll."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from dicetalk.data.dataset import EncodedClips
from dicetalk.data.encode import ClipEncoder, encode_set
from dicetalk.data.expression import expression_features
from dicetalk.data.speech import LogMelSpeech
from dicetalk.errors import DicetalkError
from dicetalk.models.autoencoder import PatchAutoencoder
from dicetalk.models.backbones.files.svd import FrameCodec
from dicetalk.models.preprocessing import CLIP_MEAN, CLIP_STD


class MeanVae(nn.Module):
    """Latents are 8x8 block means, so that they are known."""

    config = SimpleNamespace(scaling_factor=0.5)
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def encode(self, pixels: torch.Tensor) -> SimpleNamespace:
        means = nn.functional.avg_pool2d(pixels, 8) * self.scale
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: means))


class MeanColour(nn.Module):
    """The image embedding is the mean of the CLIP-normalised pixels."""

    config = SimpleNamespace(image_size=8)
    device, dtype = torch.device("cpu"), torch.float32

    def forward(self, pixels: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(image_embeds=pixels.mean((2, 3)))


@dataclass
class FakeSample:
    clip_id: str
    num_frames: int = 12

    def frames(self) -> np.ndarray:
        frames = np.zeros((self.num_frames, 16, 16, 3), np.uint8)
        frames[:] = np.arange(self.num_frames)[:, None, None, None] * 20
        return frames

    def audio(self) -> np.ndarray:
        return np.zeros(self.num_frames * 640, np.float32)

    def landmarks(self) -> np.ndarray:
        return np.random.default_rng(0).normal(8, 3, (self.num_frames, 68, 2)).astype(np.float32)


@pytest.fixture
def encoder() -> ClipEncoder:
    return ClipEncoder(
        FrameCodec(MeanVae()), MeanColour(), LogMelSpeech(8), image_embedding_stride=5, batch_frames=5
    )


@pytest.fixture
def processed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "processed" / "mead"
    folder.mkdir(parents=True)
    clips = pd.DataFrame({"clip_id": ["a", "b", "c"], "split": "train", "num_frames": 12})
    clips.assign(shard=["shard-000000.tar"] * 2 + ["shard-000001.tar"]).to_parquet(folder / "kept.parquet")
    samples = {"shard-000000.tar": ["a", "b"], "shard-000001.tar": ["c"]}
    reader = SimpleNamespace(
        read_samples=lambda path: [FakeSample(clip_id) for clip_id in samples[path.name]]
    )
    monkeypatch.setitem(sys.modules, "dicetalk.data.shards", reader)
    return folder


def test_expression_is_free_of_place_size_and_roll():
    rng = np.random.default_rng(0)
    landmarks = rng.normal(0, 10, (3, 68, 2))
    angle = 0.4
    roll = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = 2.5 * landmarks @ roll.T + np.array([30.0, -7.0])
    features = expression_features(landmarks)
    assert np.allclose(features, expression_features(moved), atol=1e-4)
    landmarks[:, 62] += 3  # a mouth point moves
    assert np.abs(expression_features(landmarks) - features).max() > 0.1


def test_coinciding_landmarks_are_refused():
    with pytest.raises(DicetalkError, match="coincide"):
        expression_features(np.zeros((1, 68, 2)))


def test_encoded_values(encoder: ClipEncoder):
    sample = FakeSample("a")
    encoded = encoder.encode(sample.frames(), sample.audio(), sample.landmarks())
    assert encoded["latents"].shape == (12, 3, 2, 2) and encoded["latents"].dtype == np.float16
    assert np.allclose(encoded["latents"][3], 0.5 * (60 / 127.5 - 1), atol=1e-3)
    colour = (100 / 255 - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
    assert np.allclose(encoded["image_embeddings"][1], colour, atol=1e-3)  # frame 5
    assert encoded["image_embeddings"].shape == (3, 3)
    assert encoded["speech"].shape == (24, 1, 8)
    assert encoded["expression"].shape == (12, 136)


def test_non_finite_latents_are_refused(encoder: ClipEncoder):
    encoder.codec.autoencoder.scale.data.fill_(torch.inf)
    sample = FakeSample("a")
    with pytest.raises(DicetalkError, match="latents"):
        encoder.encode(sample.frames(), sample.audio(), sample.landmarks())


def test_finished_shards_are_not_encoded_again(encoder: ClipEncoder, processed: Path, tmp_path: Path):
    run_dir, output = tmp_path / "runs", tmp_path / "encoded" / "mead"
    counts = encode_set(processed, encoder, run_dir, output)
    assert counts == {"clips": 3, "frames": 36, "shards": 2}
    clips = EncodedClips([output], "train")
    assert clips.read(2, "latents", 1, 3).shape == (2, 3, 2, 2)

    encoder.speech = None  # any further encoding would fail
    before = (output / "shard-000001.safetensors").read_bytes()
    encode_set(processed, encoder, run_dir, output)
    assert (output / "shard-000001.safetensors").read_bytes() == before
    (run_dir / "shard-000001.safetensors").unlink()
    with pytest.raises(AttributeError):
        encode_set(processed, encoder, run_dir, output)


def test_stored_latents_are_those_of_the_autoencoder(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Channels-last pictures give channels-last latents, which must not be stored as they lie."""
    torch.manual_seed(0)
    vae = PatchAutoencoder(latent_channels=4, channels=(4, 4, 4)).eval()
    frames = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    monkeypatch.setattr(FakeSample, "frames", lambda self: frames)
    encoder = ClipEncoder(
        FrameCodec(vae), MeanColour(), LogMelSpeech(8), image_embedding_stride=5, batch_frames=5
    )
    encode_set(processed, encoder, tmp_path / "run", tmp_path / "encoded" / "mead")
    stored = EncodedClips([tmp_path / "encoded" / "mead"]).read(0, "latents")
    with torch.no_grad():
        expected = vae.encode(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1)
    np.testing.assert_allclose(stored, expected.latent_dist.mode().numpy(), atol=2e-3)
