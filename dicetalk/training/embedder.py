"""Training of the emotion embedder: classes apart, identities mixed. The paper does not state the losses.

loss = supervised contrastive over the 22 classes, positives from other identities only
     + kl_weight * KL(N(mu, variance) || N(0, 1))
     + identity_weight * identity classification through a reversed gradient

Any identity_weight above 0 also removes identity in closed form, see `dicetalk.training.identity_removal`:
from the inputs before training, from the output after it. With 0 nothing removes identity.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicetalk.compute.precision import compute_device
from dicetalk.config import TrainEmbedder, TrainingCompute
from dicetalk.data.dataset import EmbedderBatch, EmbedderBatches, EncodedClips
from dicetalk.files import atomic_directory
from dicetalk.models.embedder import EmbedderOutput, EmotionEmbedder, per_frame_speech
from dicetalk.tracking.tracker import Tracker
from dicetalk.training import parallel
from dicetalk.training.checkpoint import write_curves
from dicetalk.training.embedder_metrics import embedder_metrics
from dicetalk.training.embeddings import EMBEDDINGS_FILE, embedding_table, modalities_of
from dicetalk.training.identity_removal import (
    erase_identity_from_output,
    fold_inputs,
    subtract_identity_from_inputs,
)
from dicetalk.training.loop import train
from dicetalk.training.timings import take_timings

VALIDATION_STEP_OFFSET = 10**9  # draws the validation batch from seeds that training never reaches


class EmbedderObjective:
    """Contrastive, KL and adversarial identity loss of the embedder.

    Args:
        embedder: the model to train.
        train_batches: batches of the training identities.
        test_batches: batches of held-out identities.
        settings: weights of the terms.
    """

    def __init__(
        self,
        embedder: EmotionEmbedder,
        train_batches: EmbedderBatches,
        test_batches: EmbedderBatches,
        settings: TrainEmbedder,
    ):
        self.embedder, self.settings = embedder, settings
        self.train_batches, self.test_batches = train_batches, test_batches
        dim, num_identities = embedder.config.embedding_dim, len(train_batches.identity_names)
        self.identity_classifier = nn.Sequential(
            nn.Linear(dim, settings.hidden_dim), nn.ReLU(), nn.Linear(settings.hidden_dim, num_identities)
        ).to(embedder.device)
        self.modules = {"embedder": embedder, "identity_classifier": self.identity_classifier}

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return one group with everything."""
        return [{"params": [p for module in self.modules.values() for p in module.parameters()], "lr": lr}]

    def loss(self, step: int, batch_size: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of one batch, each sample with speech, expression or both."""
        started = time.monotonic()
        own = parallel.own_slice(batch_size)
        batch = self.train_batches.draw(step, batch_size, own).to(self.embedder.device)
        data_seconds = time.monotonic() - started

        # 1. Modality dropout: one of the two at most, none where there is only one
        chance = torch.rand(batch_size)[own].to(self.embedder.device)
        parallel.use_own_random_numbers()
        dropout = self.settings.modality_dropout if self.settings.modalities == "both" else 0.0
        speech_present = chance >= dropout
        expression_present = chance < 1 - dropout
        output = self.embedder(batch.speech, batch.expression, speech_present, expression_present)

        # 2. Terms; samples are contrasted with those of all processes
        sample, classes, identities = (
            parallel.gather(part) for part in (output.sample(), batch.classes, batch.identities)
        )
        contrastive = supervised_contrastive(sample, classes, identities, self.settings.temperature)
        kl = kl_to_standard_normal(output)
        logits = self.identity_classifier(ReverseGradient.apply(output.mu))
        identity = F.cross_entropy(logits, batch.identities)
        loss = contrastive + self.settings.kl_weight * kl + self.settings.identity_weight * identity
        return loss, {
            "contrastive": contrastive.item(),
            "kl": kl.item(),
            "identity": identity.item(),
            "data_seconds": data_seconds,
        }

    def validate(self, step: int) -> dict[str, float]:
        """Return the contrastive loss of `mu` on held-out identities for each choice of modalities."""
        batch = self.test_batches.draw(VALIDATION_STEP_OFFSET, 4 * self.settings.training.batch_size)
        batch = batch.to(self.embedder.device)
        given = {
            "audio": (batch.speech, None),
            "video": (None, batch.expression),
            "both": (batch.speech, batch.expression),
        }
        return {
            f"contrastive_{name}": self._contrastive(self.embedder(*given[name]).mu, batch).item()
            for name in modalities_of(self.embedder)
        }

    def _contrastive(self, mu: Tensor, batch: EmbedderBatch) -> Tensor:
        return supervised_contrastive(mu, batch.classes, batch.identities, self.settings.temperature)


def fit_normalisation(embedder: EmotionEmbedder, batches: EmbedderBatches) -> None:
    """Standardise the embedder's inputs by the statistics of one excerpt of each training clip."""
    rows = np.arange(len(batches.clips))
    batch = batches.load(rows, np.zeros(len(rows), int))
    embedder.speech.fit_normalisation(per_frame_speech(batch.speech).flatten(0, 1))
    embedder.expression.fit_normalisation(batch.expression.flatten(0, 1))


def supervised_contrastive(z: Tensor, classes: Tensor, identities: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss whose positives are the same class in other identities.

    Pairs of the same class and the same identity count neither as positives nor as negatives: pulling them
    together would reward identity, pushing them apart would punish emotion.

    Args:
        z: `(batch, dim)`, compared by cosine.
        classes: `(batch,)`.
        identities: `(batch,)`.
        temperature: divides the cosines.
    """
    z = F.normalize(z.float(), dim=-1)
    same_class = classes[:, None] == classes
    same_identity = identities[:, None] == identities
    positive = same_class & ~same_identity
    logits = (z @ z.T / temperature).masked_fill(same_class & same_identity, -torch.inf)
    log_probability = logits.log_softmax(-1).masked_fill(~positive, 0.0)
    counts = positive.sum(-1)
    anchors = counts > 0
    return -(log_probability.sum(-1)[anchors] / counts[anchors]).mean()


def kl_to_standard_normal(output: EmbedderOutput) -> Tensor:
    """Return KL(N(mu, variance) || N(0, 1)) averaged over batch and dimensions.

    The norm of `mu` is fixed by its LayerNorm, so this term keeps the variance from vanishing and does
    nothing else.
    """
    mu, log_variance = output.mu.float(), output.log_variance.float()
    return 0.5 * (mu.square() + log_variance.exp() - 1 - log_variance).mean()


class ReverseGradient(torch.autograd.Function):
    """Identity with a negated gradient: what is below unlearns what is above (Ganin & Lempitsky 2015)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Return `values`."""
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the negated gradient."""
        return -gradient


def train_embedder(
    encoded: Sequence[Path],
    settings: TrainEmbedder,
    compute: TrainingCompute,
    run_dir: Path,
    output: Path,
    tracker: Tracker,
) -> dict[str, Any]:
    """Train the embedder, save it to `output`, and measure it on held-out identities.

    Args:
        encoded: `data/encoded/<set>` of the emotional corpora.
        settings: the section of `params.yaml`.
        compute: its part of `compute`.
        run_dir: folder of checkpoints.
        output: `models/embedder`.
        tracker: receives the curves.

    Returns:
        The stage's metrics; empty on all processes but the main one, which saves the embedder.
    """
    torch.set_num_threads(compute.threads)
    torch.manual_seed(settings.training.seed)
    train_clips = EncodedClips(encoded, "train", settings.clip_frames)
    test_clips = EncodedClips(encoded, "test", settings.clip_frames)
    train_batches = EmbedderBatches(train_clips, settings.clip_frames, settings.training.seed)
    test_batches = EmbedderBatches(test_clips, settings.clip_frames, settings.training.seed)
    speech_layers, speech_channels = train_clips.read(0, "speech", 0, 1).shape[1:]
    embedder = EmotionEmbedder(
        speech_layers=speech_layers,
        speech_channels=speech_channels,
        expression_dim=train_clips.read(0, "expression", 0, 1).shape[1],
        embedding_dim=settings.embedding_dim,
        hidden_dim=settings.hidden_dim,
        num_layers=settings.num_layers,
        num_heads=settings.num_heads,
        clip_frames=settings.clip_frames,
        modalities=settings.modalities,
    )
    fit_normalisation(embedder, train_batches)
    if settings.identity_weight:
        subtract_identity_from_inputs(embedder, train_batches)
    embedder.to(compute_device())
    objective = EmbedderObjective(embedder, train_batches, test_batches, settings)
    metrics = train(objective, settings.training, compute, run_dir, tracker, "train_embedder")
    if parallel.process_index() > 0:
        return {}
    metrics = take_timings(metrics, run_dir, tracker)
    if settings.identity_weight:
        fold_inputs(embedder)
        erase_identity_from_output(embedder, train_batches)
    with atomic_directory(output) as folder:
        embedder.save_pretrained(folder)
        write_curves(run_dir, folder / "curves.csv")
        table = embedding_table(embedder, {"train": train_clips, "test": test_clips})
        table.to_parquet(folder / EMBEDDINGS_FILE, index=False)
    return {
        "training": metrics,
        **embedder_metrics(embedder, train_clips, test_clips, settings.training.seed),
    }
