"""From one feature vector to a short sequence of cross-attention tokens."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F


class TokenProjection(nn.Module):
    """Three-layer MLP that turns a vector into `num_tokens` layer-normalised tokens.

    The audio projection and both projections of the emotion model share this form (official `AudioProjModel`
    and `FeatureProj`).
    """

    def __init__(self, in_features: int, hidden_dim: int, num_tokens: int, output_dim: int):
        super().__init__()
        self.num_tokens = num_tokens
        self.proj1 = nn.Linear(in_features, hidden_dim)
        self.proj2 = nn.Linear(hidden_dim, hidden_dim)
        self.proj3 = nn.Linear(hidden_dim, num_tokens * output_dim)
        self.norm = nn.LayerNorm(output_dim)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `(..., in_features)` to `(..., num_tokens, output_dim)`."""
        hidden = F.relu(self.proj1(features))
        hidden = F.relu(self.proj2(hidden))
        tokens = self.proj3(hidden).unflatten(-1, (self.num_tokens, -1))
        return self.norm(tokens)


class AudioProjection(TokenProjection, ModelMixin, ConfigMixin):
    """Speech features around one video frame to audio tokens (official `audio_linear`).

    Args:
        window_size: speech-feature steps per video frame (10 steps of 20 ms: about -80 ms to +120 ms).
        num_layers: hidden states kept per step (whisper-tiny: embedding output and 4 layers).
        channels: width of one hidden state.
        hidden_dim: width of the MLP.
        num_tokens: tokens per video frame.
        output_dim: token width, the UNet's `cross_attention_dim`.
    """

    @register_to_config
    def __init__(
        self,
        window_size: int = 10,
        num_layers: int = 5,
        channels: int = 384,
        hidden_dim: int = 1024,
        num_tokens: int = 32,
        output_dim: int = 1024,
    ):
        super().__init__(window_size * num_layers * channels, hidden_dim, num_tokens, output_dim)
        self.window_shape = (window_size, num_layers, channels)

    def forward(self, audio_windows: torch.Tensor) -> torch.Tensor:
        """Project windows of speech features.

        Args:
            audio_windows: `(batch, frames, window_size, num_layers, channels)`; positions outside the clip
                are zeros.

        Returns:
            Tokens `(batch, frames, num_tokens, output_dim)`.
        """
        return super().forward(audio_windows.flatten(-3))

    def null_tokens(self) -> torch.Tensor:
        """Return the unconditional tokens `(1, 1, num_tokens, output_dim)`: those of an all-zero window."""
        return self(self.proj1.weight.new_zeros(1, 1, *self.window_shape))
