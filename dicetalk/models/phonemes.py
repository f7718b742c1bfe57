"""Speech features of the demo: a small network that recognises speech sounds, where the paper has Whisper."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


class PhonemeEncoder(ModelMixin, ConfigMixin):
    """Convolutions over a log-mel spectrogram; what the sounds are read from serves as speech feature.

    Args:
        num_mels: bands of the spectrogram, and width of the features, so that both stack as layers.
        hidden_dim: width of the convolutions.
        num_sounds: classes, silence included.
    """

    @register_to_config
    def __init__(self, num_mels: int = 40, hidden_dim: int = 96, num_sounds: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(num_mels, hidden_dim, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(hidden_dim, hidden_dim, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(hidden_dim, hidden_dim, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(hidden_dim, num_mels, 1),
        )
        self.norm = nn.LayerNorm(num_mels, elementwise_affine=False)
        self.head = nn.Linear(num_mels, num_sounds)

    def forward(self, log_mels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Recognise sounds.

        Args:
            log_mels: `(batch, tokens, num_mels)`, see `dicetalk.data.speech.LogMelSpeech`.

        Returns:
            Features `(batch, tokens, num_mels)` of zero mean and unit variance, and the logits of the sounds
            `(batch, tokens, num_sounds)`.
        """
        features = self.norm(self.layers(log_mels.movedim(1, 2)).movedim(1, 2))
        return features, self.head(features)
