"""Emotion embeddings of whole encoded clips."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import torch

from dicetalk.data.dataset import EncodedClips
from dicetalk.models.embedder import EmotionEmbedder

Modalities = Literal["audio", "video", "both"]
MODALITIES: tuple[Modalities, ...] = ("audio", "video", "both")
BATCH_CLIPS = 64
EMBEDDINGS_FILE = "embeddings.parquet"  # beside the embedder's weights


def modalities_of(embedder: EmotionEmbedder) -> tuple[Modalities, ...]:
    """Return what an embedder can be given: all of `MODALITIES`, or the only one it was trained on."""
    only = embedder.config.modalities
    return MODALITIES if only == "both" else (only,)


@torch.no_grad()
def embed_clips(
    embedder: EmotionEmbedder, clips: EncodedClips, modalities: Modalities = "both"
) -> np.ndarray:
    """Return `EmotionEmbedder.embed` of each clip `(clips, embedding_dim)`, in the order of the table.

    `both` of an embedder of one modality is that modality.
    """
    embedder.eval()
    vectors = np.empty((len(clips), embedder.config.embedding_dim), np.float32)
    for start in range(0, len(clips), BATCH_CLIPS):
        rows = range(start, min(start + BATCH_CLIPS, len(clips)))
        windows = {row: _windows(embedder, clips, row, modalities) for row in rows}
        # Windows of one length go through the network together; only clips shorter than a window have
        # another.
        for length in sorted({_length(item) for item in windows.values()}):
            same = {row: item for row, item in windows.items() if _length(item) == length}
            mu = embedder(*(_concatenate(parts) for parts in zip(*same.values(), strict=True))).mu
            counts = [len(next(part for part in item if part is not None)) for item in same.values()]
            for row, group in zip(same, mu.split(counts), strict=True):
                vectors[row] = group.mean(0).cpu().numpy()
    return vectors


def _windows(
    embedder: EmotionEmbedder, clips: EncodedClips, row: int, modalities: Modalities
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    speech = None if modalities == "video" else torch.from_numpy(clips.read(row, "speech")).float()
    expression = None if modalities == "audio" else torch.from_numpy(clips.read(row, "expression"))
    return embedder.windows(speech, expression)


def _length(windows: tuple[torch.Tensor | None, torch.Tensor | None]) -> int:
    return next(part.shape[1] for part in windows if part is not None)


def _concatenate(parts: tuple[torch.Tensor | None, ...]) -> torch.Tensor | None:
    return None if parts[0] is None else torch.cat(parts)


def embedding_table(embedder: EmotionEmbedder, splits: dict[str, EncodedClips]) -> pd.DataFrame:
    """Return the embedding of each clip beside its labels, for figures and for other analyses.

    Args:
        embedder: the trained embedder.
        splits: name of the split -> its clips.

    Returns:
        Columns `clip_id`, `identity`, `emotion`, `level`, `split`, and `mu`: `embedding_dim` numbers.
    """
    tables = [
        clips.table[["clip_id", "identity", "emotion", "level"]].assign(
            split=split, mu=list(embed_clips(embedder, clips))
        )
        for split, clips in splits.items()
    ]
    return pd.concat(tables, ignore_index=True)
