"""Closed-form removal of identity from the embedder: once before its inputs, once at its end.

An adversary alone does not do it: with a handful of identities the classifier and the embedder chase each
other, and a fresh probe still names the person. Both steps here are linear maps fitted on training clips and
folded into layers that exist, so that the network and its files stay as they are.

1. Inputs: a clip's mean features are modelled as an offset of the person plus the rest, both Gaussian (as in
   probabilistic linear discriminant analysis). The expected offset given the clip is subtracted.
2. Output: what the fused features still tell linearly about identity is erased with the least possible change
   (LEACE, Belrose et al. 2023, arXiv 2306.03819), within classes and per choice of modalities.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dicetalk.data.dataset import EmbedderBatch, EmbedderBatches
from dicetalk.models.embedder import EmotionEmbedder, ModalityEncoder, per_frame_speech
from dicetalk.training.embeddings import modalities_of

EXCERPT_PLACES = (0.0, 0.5, 1.0)  # of a clip, from its first to its last possible excerpt
BATCH_CLIPS = 64
# Diagonal added to covariances, in parts of their mean variance: few clips leave directions unobserved.
INPUT_RIDGE, OUTPUT_RIDGE = 1e-3, 1e-2
NEGLIGIBLE = 1e-8  # singular values below this part of the largest are rounding errors


class _MappedInputs(nn.Module):
    """Parametrisation of a linear layer's weight: its inputs pass through a fixed square matrix first."""

    matrix: Tensor

    def __init__(self, matrix: Tensor):
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight `(out, in)` that acts on inputs not mapped yet."""
        return weight @ self.matrix


@torch.no_grad()
def subtract_identity_from_inputs(embedder: EmotionEmbedder, batches: EmbedderBatches) -> None:
    """Make both encoders read inputs less the expected offset of the person, from now on.

    Needs fitted normalisation. `fold_inputs` makes it permanent after training.
    """
    encoders = {"speech": embedder.speech, "expression": embedder.expression}
    sums: dict[str, list[Tensor]] = {name: [] for name in encoders}
    for place in EXCERPT_PLACES:
        means: dict[str, list[Tensor]] = {name: [] for name in encoders}
        for batch in excerpts(batches, place):
            values = {"speech": per_frame_speech(batch.speech), "expression": batch.expression}
            for name, encoder in encoders.items():
                means[name].append(((values[name] - encoder.mean) / encoder.std).mean(1).double())
        for name in encoders:
            sums[name].append(torch.cat(means[name]))
    classes, identities = torch.from_numpy(batches.classes), torch.from_numpy(batches.identities)
    for name, encoder in encoders.items():
        clips = torch.stack(sums[name]).mean(0)
        matrix = without_expected_offset(clips, classes, identities).to(encoder.input.weight)
        parametrize.register_parametrization(encoder.input, "weight", _MappedInputs(matrix))


def fold_inputs(embedder: EmotionEmbedder) -> None:
    """Merge the maps of `subtract_identity_from_inputs` into the weights of the encoders' input layers."""
    encoders: tuple[ModalityEncoder, ...] = (embedder.speech, embedder.expression)
    for encoder in encoders:
        parametrize.remove_parametrizations(encoder.input, "weight", leave_parametrized=True)


@torch.no_grad()
def erase_identity_from_output(embedder: EmotionEmbedder, batches: EmbedderBatches) -> None:
    """Blind `mu` and `log_variance` to what the fused features tell linearly about training identities."""
    embedder.eval()
    modalities = modalities_of(embedder)
    hidden, groups = [], []
    for place in EXCERPT_PLACES:
        for batch in excerpts(batches, place):
            speech, expression = batch.speech.to(embedder.device), batch.expression.to(embedder.device)
            given = {"audio": (speech, None), "video": (None, expression), "both": (speech, expression)}
            for number, name in enumerate(modalities):
                hidden.append(embedder.fuse(*given[name]).double().cpu())
                labels = torch.stack([batch.classes, batch.identities], dim=1)
                groups.append(torch.cat([labels, torch.full((len(labels), 1), number)], dim=1))
    features, labels = torch.cat(hidden), torch.cat(groups)
    # Audio, video and both are treated as corpora of their own, so that none of the three keeps identity.
    classes = labels[:, 0] * len(modalities) + labels[:, 2]
    identities = labels[:, 1] * len(modalities) + labels[:, 2]
    eraser, mean = erasing_map(features, classes, identities)
    for layer in (embedder.mu, embedder.log_variance):
        weight = layer.weight.double().cpu()
        layer.bias += (weight @ (mean - eraser @ mean)).to(layer.bias)
        layer.weight.copy_(weight @ eraser)


def excerpts(batches: EmbedderBatches, place: float) -> Iterator[EmbedderBatch]:
    """Yield one excerpt of each clip in the order of the table; `place` in [0, 1] says from where."""
    starts = np.round(place * (batches.num_frames - batches.clip_frames)).astype(int)
    for first in range(0, len(starts), BATCH_CLIPS):
        rows = np.arange(first, min(first + BATCH_CLIPS, len(starts)))
        yield batches.load(rows, starts[rows])


def without_expected_offset(vectors: Tensor, classes: Tensor, identities: Tensor) -> Tensor:
    """Return the matrix that subtracts from a vector its person's expected offset.

    With covariance B of the offsets and W of the rest the expected offset is `B (B + W)^-1 x`; the matrix is
    `W (B + W)^-1`. Offsets are measured within classes, the rest within identities, so that what classes
    change counts as worth keeping.

    Args:
        vectors: `(clips, dim)` with zero mean.
        classes: `(clips,)`.
        identities: `(clips,)`.
    """
    offsets = _means(_less_means(vectors, classes), identities)
    offsets = offsets - offsets.mean(0)
    between = offsets.T @ offsets / len(offsets)
    within = _covariance(_less_means(vectors, identities), INPUT_RIDGE)
    return torch.linalg.solve(between + within, within).T


def erasing_map(vectors: Tensor, classes: Tensor, identities: Tensor) -> tuple[Tensor, Tensor]:
    """Return the projection and the mean of LEACE: `mean + projection @ (x - mean)` hides identity.

    Args:
        vectors: `(samples, dim)`.
        classes: `(samples,)`; identity is hidden within each class.
        identities: `(samples,)`.
    """
    values = _less_means(vectors, classes)
    named = nn.functional.one_hot(torch.unique(identities, return_inverse=True)[1]).to(values)
    named = _less_means(named, classes)
    variances, axes = torch.linalg.eigh(_covariance(values, OUTPUT_RIDGE))
    whiten, colour = (axes * variances**power @ axes.T for power in (-0.5, 0.5))
    directions, strengths, _ = torch.linalg.svd(whiten @ values.T @ named, full_matrices=False)
    told = directions[:, strengths > NEGLIGIBLE * strengths[0]]
    projection = torch.eye(len(told), dtype=told.dtype) - colour @ told @ told.T @ whiten
    return projection, vectors.mean(0)


def _means(vectors: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of each label `(labels, dim)`, in ascending order."""
    places, counts = torch.unique(labels, return_inverse=True, return_counts=True)[1:]
    sums = torch.zeros(len(counts), vectors.shape[1], dtype=vectors.dtype)
    return sums.index_add_(0, places, vectors) / counts[:, None]


def _less_means(vectors: Tensor, labels: Tensor) -> Tensor:
    return vectors - _means(vectors, labels)[torch.unique(labels, return_inverse=True)[1]]


def _covariance(centred: Tensor, ridge: float) -> Tensor:
    covariance = centred.T @ centred / len(centred)
    return covariance + ridge * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=centred.dtype)
