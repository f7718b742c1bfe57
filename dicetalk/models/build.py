"""The networks around the video backbone, from parameters and the shape of the data: their one factory.

Training, `dicetalk plan`, the exchange with the authors' files and tests build through these functions, so a
plan sizes what training trains. The backbone's own network comes from `dicetalk.models.backbones`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from dicetalk.config import LearnBank, TrainDiffusion, TrainEmbedder
from dicetalk.config.params import AudioProjection as AudioProjectionSettings
from dicetalk.labels import CLASSES
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.projection import AudioProjection
from dicetalk.models.widths import Widths


@dataclass(frozen=True)
class DataShape:
    """Widths of encoded clips, see `dicetalk.data.shape` for where they come from.

    Attributes:
        speech_layers: layers of a speech token.
        speech_channels: width of each of them.
        expression_dim: width of a frame's expression features.
    """

    speech_layers: int
    speech_channels: int
    expression_dim: int


def build_embedder(settings: TrainEmbedder, data: DataShape) -> EmotionEmbedder:
    """Return the untrained emotion embedder of section `train_embedder`."""
    return EmotionEmbedder(
        speech_layers=data.speech_layers,
        speech_channels=data.speech_channels,
        expression_dim=data.expression_dim,
        embedding_dim=settings.embedding_dim,
        hidden_dim=settings.hidden_dim,
        num_layers=settings.num_layers,
        num_heads=settings.num_heads,
        clip_frames=settings.clip_frames,
        modalities=settings.modalities,
    )


def build_emotion_model(settings: LearnBank, prior_dim: int, widths: Widths) -> EmotionModel:
    """Return the untrained bank, attention and discriminator of section `learn_bank`.

    Args:
        settings: the section.
        prior_dim: width of the emotion prior, `train_embedder.embedding_dim`.
        widths: of the backbone.
    """
    return EmotionModel(
        prior_dim=prior_dim,
        dim=settings.dim,
        num_codes=settings.num_codes,
        num_tokens=settings.num_tokens,
        num_heads=settings.num_heads,
        hidden_dim=settings.dim,
        classifier_in_channels=widths.features,
        num_classes=len(CLASSES),
        use_bank=settings.use_bank,
    )


def build_audio_projection(
    settings: AudioProjectionSettings, data: DataShape, widths: Widths
) -> AudioProjection:
    """Return the untrained audio projection of section `train_diffusion.audio_projection`."""
    return AudioProjection(
        window_size=settings.window_tokens,
        num_layers=data.speech_layers,
        channels=data.speech_channels,
        hidden_dim=settings.hidden_dim,
        num_tokens=settings.num_tokens,
        output_dim=widths.tokens,
    )


def build_pose_guider(block_out_channels: Sequence[int], widths: Widths) -> PoseGuider:
    """Return the untrained pose guider of `train_diffusion.pose_guider_channels`."""
    return PoseGuider(
        conditioning_embedding_channels=widths.pose, block_out_channels=tuple(block_out_channels)
    )


def build_conditioners(
    diffusion: TrainDiffusion, bank: LearnBank, prior_dim: int, data: DataShape, widths: Widths
) -> dict[str, nn.Module]:
    """Return the networks that `train_diffusion` trains besides the backbone, by name.

    Those of conditions that make their own are in `dicetalk.models.conditions.table.build_further`.
    """
    return {
        "audio_projection": build_audio_projection(diffusion.audio_projection, data, widths),
        "emotion_model": build_emotion_model(bank, prior_dim, widths),
        "pose_guider": build_pose_guider(diffusion.pose_guider_channels, widths),
    }
