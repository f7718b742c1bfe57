"""Emotion embeddings of whole encoded clips."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from dicetalk.data.dataset import EncodedClips
from dicetalk.models.embedder import EmotionEmbedder

Modalities = Literal["audio", "video", "both"]
MODALITIES: tuple[Modalities, ...] = ("audio", "video", "both")


def embed_clips(
    embedder: EmotionEmbedder, clips: EncodedClips, modalities: Modalities = "both"
) -> np.ndarray:
    """Return `mu` of each clip `(clips, embedding_dim)`, in the order of the table."""
    embedder.eval()
    return np.stack([_embed(embedder, clips, row, modalities).cpu().numpy() for row in range(len(clips))])


def _embed(embedder: EmotionEmbedder, clips: EncodedClips, row: int, modalities: Modalities) -> torch.Tensor:
    speech = None if modalities == "video" else torch.from_numpy(clips.read(row, "speech")).float()
    expression = None if modalities == "audio" else torch.from_numpy(clips.read(row, "expression"))
    return embedder.embed(speech, expression)
