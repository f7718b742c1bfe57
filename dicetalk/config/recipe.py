"""Typed parameters of `pretrained/demo-backbone/params.yaml`, the recipe of the backbone that ships."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from dicetalk.config import Probability, Section, Training, TrainingCompute, parse_params, read_yaml


class PretrainClips(Section):
    """Procedural clips of endless identities that the demo backbone is pretrained on."""

    seed: int
    num_people: PositiveInt
    num_takes: PositiveInt  # per person, each with its own expressions and crop
    num_frames: PositiveInt  # per take
    num_validation: PositiveInt  # takes never trained on
    fps: PositiveFloat
    size_px: PositiveInt
    crop_margin: float = Field(ge=0)


class PretrainAutoencoder(Section):
    """The patch autoencoder; see `dicetalk/training/autoencoder.py`."""

    training: Training
    latent_channels: PositiveInt
    latent_noise: float = Field(ge=0)
    edge_weight: float = Field(ge=0)


class PretrainSpeech(Section):
    """The speech encoder; see `dicetalk/training/phonemes.py`."""

    training: Training
    num_utterances: PositiveInt
    num_validation: PositiveInt  # utterances never trained on
    num_mels: PositiveInt
    hidden_dim: PositiveInt
    excerpt_tokens: PositiveInt  # 50 a second


class PretrainUnet(Section):
    """The image-to-video UNet; see `dicetalk/training/backbone.py`."""

    training: Training
    block_out_channels: list[PositiveInt]
    attention_heads: list[PositiveInt]
    cross_attention_dim: PositiveInt
    num_frames: PositiveInt
    short_window_fraction: Probability
    sigma_log_mean: float
    sigma_log_std: PositiveFloat


class PretrainCompute(Section):
    """How it is computed."""

    workers: PositiveInt
    training: TrainingCompute  # of all parts


class PretrainParams(Section):
    """All of `pretrained/demo-backbone/params.yaml`."""

    clips: PretrainClips
    speech: PretrainSpeech
    autoencoder: PretrainAutoencoder
    unet: PretrainUnet
    compute: PretrainCompute


def load_pretrain_params(path: Path) -> PretrainParams:
    """Read and validate the recipe's parameters; raises as `dicetalk.config.load_params`."""
    return parse_params(read_yaml(Path(path)), str(path), PretrainParams)
