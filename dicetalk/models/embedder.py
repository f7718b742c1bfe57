"""Disentangled emotion embedder: speech and facial expression of a clip to an identity-agnostic Gaussian.

The paper states the inputs (audio and video), the fusion (cross-modal attention) and the output (a
Gaussian); sizes and encoders are ours. The released priors show a `mu` with zero mean, so a LayerNorm
without affine ends it, as here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

SPEECH_TOKENS_PER_FRAME = 2  # 50 tokens a second, 25 frames a second
MAX_LOG_VARIANCE = 5.0
INITIAL_LOG_VARIANCE = -3.0


@dataclass
class EmbedderOutput(BaseOutput):
    """Gaussian over emotions.

    Args:
        mu: `(batch, embedding_dim)`, each row with zero mean and unit variance.
        log_variance: `(batch, embedding_dim)`.
    """

    mu: torch.Tensor
    log_variance: torch.Tensor

    def sample(self) -> torch.Tensor:
        """Draw from the Gaussian with the global random state."""
        return self.mu + torch.exp(0.5 * self.log_variance) * torch.randn_like(self.mu)


class ModalityEncoder(nn.Module):
    """Per-frame features to context-aware tokens; an absent modality becomes one learned token."""

    def __init__(self, in_features: int, dim: int, num_layers: int, num_heads: int, dropout: float):
        super().__init__()
        self.register_buffer("mean", torch.zeros(in_features))
        self.register_buffer("std", torch.ones(in_features))
        self.input = nn.Linear(in_features, dim)
        self.absent = nn.Parameter(torch.zeros(1, 1, dim))
        layer = nn.TransformerEncoderLayer(
            dim, num_heads, 2 * dim, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)

    @torch.no_grad()
    def fit_normalisation(self, features: torch.Tensor) -> None:
        """Standardise inputs as `features` `(rows, in_features)` are distributed.

        What an emotion changes of a face is small beside its mean shape; without this, training finds none.
        """
        self.mean.copy_(features.mean(0))
        self.std.copy_(features.std(0).clamp_min(1e-3))

    def forward(self, features: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        """Encode `(batch, frames, in_features)`; samples not `present` `(batch,)` get the absent token."""
        hidden = self.input((features - self.mean) / self.std)
        tokens = self.layers(hidden + _positions(hidden.shape[1], hidden))
        if present is None:
            return tokens
        # Repeating one token over time attends and averages like a single one, so this equals the `None`
        # path.
        return torch.where(present[:, None, None], tokens, self.absent)


class EmotionEmbedder(ModelMixin, ConfigMixin):
    """Audio and expression transformers joined by cross-modal attention.

    Args:
        speech_layers: layers of a speech token.
        speech_channels: width of one layer of a speech token.
        expression_dim: width of a frame's expression features.
        embedding_dim: width of the Gaussian; 256 in the released priors.
        hidden_dim: width of the transformers.
        num_layers: layers of each of the two transformers.
        num_heads: attention heads.
        clip_frames: frames at 25 fps of the excerpts it is trained on; `embed` cuts longer clips into such
            windows.
        dropout: dropout probability.
        modalities: what it reads of a clip, `both`, or `audio` or `video` alone; the other is ignored.
    """

    @register_to_config
    def __init__(
        self,
        speech_layers: int = 5,
        speech_channels: int = 384,
        expression_dim: int = 136,
        embedding_dim: int = 256,
        hidden_dim: int = 256,
        num_layers: int = 4,
        num_heads: int = 4,
        clip_frames: int = 50,
        dropout: float = 0.1,
        modalities: Literal["both", "audio", "video"] = "both",
    ):
        super().__init__()
        speech_dim = SPEECH_TOKENS_PER_FRAME * speech_layers * speech_channels
        self.speech = ModalityEncoder(speech_dim, hidden_dim, num_layers, num_heads, dropout)
        self.expression = ModalityEncoder(expression_dim, hidden_dim, num_layers, num_heads, dropout)
        self.speech_reads = nn.MultiheadAttention(hidden_dim, num_heads, dropout, batch_first=True)
        self.expression_reads = nn.MultiheadAttention(hidden_dim, num_heads, dropout, batch_first=True)
        self.fusion = nn.Sequential(
            nn.LayerNorm(2 * hidden_dim),
            nn.Linear(2 * hidden_dim, 2 * hidden_dim),
            nn.GELU(),
            nn.Dropout(dropout),
        )
        self.mu = nn.Linear(2 * hidden_dim, embedding_dim)
        self.mu_norm = nn.LayerNorm(embedding_dim, elementwise_affine=False)
        self.log_variance = nn.Linear(2 * hidden_dim, embedding_dim)
        # Noise as large as the signal at the start would hide it from the contrastive loss.
        nn.init.constant_(self.log_variance.bias, INITIAL_LOG_VARIANCE)

    def forward(
        self,
        speech: torch.Tensor | None,
        expression: torch.Tensor | None,
        speech_present: torch.Tensor | None = None,
        expression_present: torch.Tensor | None = None,
    ) -> EmbedderOutput:
        """Embed clips of equal length.

        Args:
            speech: speech tokens `(batch, 2 * frames, speech_layers, speech_channels)`; `None`: not given.
            expression: `(batch, frames, expression_dim)`; `None`: not given. At least one of the two is
                needed.
            speech_present: boolean `(batch,)`; False treats a sample's speech as not given.
            expression_present: likewise.

        Returns:
            The Gaussian of each clip.
        """
        hidden = self.fuse(speech, expression, speech_present, expression_present)
        log_variance = self.log_variance(hidden).clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
        return EmbedderOutput(self.mu_norm(self.mu(hidden)), log_variance)

    def fuse(
        self,
        speech: torch.Tensor | None,
        expression: torch.Tensor | None,
        speech_present: torch.Tensor | None = None,
        expression_present: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the fused features `(batch, 2 * hidden_dim)` that the Gaussian is read from."""
        speech = None if self.config.modalities == "video" else speech
        expression = None if self.config.modalities == "audio" else expression
        given = expression if speech is None else speech
        if given is None:
            raise ValueError(
                f"The embedder reads {self.config.modalities}: speech for audio, expression for video."
            )

        # 1. Each modality by itself
        batch = len(given)
        if speech is not None:
            heard = self.speech(per_frame_speech(speech), speech_present)
        else:
            heard = self.speech.absent.expand(batch, -1, -1)
        if expression is not None:
            seen = self.expression(expression, expression_present)
        else:
            seen = self.expression.absent.expand(batch, -1, -1)

        # 2. Each reads the other
        heard_with_seen = heard + self.speech_reads(heard, seen, seen, need_weights=False)[0]
        seen_with_heard = seen + self.expression_reads(seen, heard, heard, need_weights=False)[0]

        # 3. Pool over time
        pooled = torch.cat([heard_with_seen.mean(1), seen_with_heard.mean(1)], dim=-1)
        return self.fusion(pooled)

    @torch.no_grad()
    def embed(self, speech: torch.Tensor | None, expression: torch.Tensor | None) -> torch.Tensor:
        """Return the mean `mu` `(embedding_dim,)` over windows that evenly cover one clip of any length.

        Args:
            speech: `(tokens, speech_layers, speech_channels)` or `None`.
            expression: `(frames, expression_dim)` or `None`.
        """
        speech, expression = self.windows(speech, expression)
        return self(speech, expression).mu.mean(0)

    def windows(
        self, speech: torch.Tensor | None, expression: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Cut one clip as `embed` does: `(windows, ...)` of each modality, on the model's device."""
        lengths = [] if speech is None else [len(speech) // SPEECH_TOKENS_PER_FRAME]
        lengths += [] if expression is None else [len(expression)]
        num_frames, size = min(lengths), min(self.config.clip_frames, *lengths)
        starts = torch.linspace(0, num_frames - size, math.ceil(num_frames / size)).round().long().tolist()

        def cut(features: torch.Tensor | None, per_frame: int) -> torch.Tensor | None:
            if features is None:
                return None
            pieces = [features[per_frame * start : per_frame * (start + size)] for start in starts]
            return torch.stack(pieces).to(self.device, self.dtype)

        return cut(speech, SPEECH_TOKENS_PER_FRAME), cut(expression, 1)


def per_frame_speech(speech: torch.Tensor) -> torch.Tensor:
    """Join the tokens of a video frame: `(batch, 2 * frames, layers, channels)` to `(batch, frames, dim)`."""
    return speech.flatten(2).unflatten(1, (-1, SPEECH_TOKENS_PER_FRAME)).flatten(2)


def _positions(length: int, like: torch.Tensor) -> torch.Tensor:
    """Return sinusoidal position codes `(length, dim)`; any length works."""
    dim = like.shape[-1]
    frequencies = torch.exp(torch.arange(0, dim, 2, device=like.device) * (-math.log(10_000.0) / dim))
    angles = torch.arange(length, device=like.device)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :dim].to(like.dtype)
