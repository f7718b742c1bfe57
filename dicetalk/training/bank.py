"""Learning of the emotion bank: codes that emotions are made of, and attention that mixes them.

As released, the bank gets a gradient from the VQ loss in retrieval mode alone (official `emo.py`); how the
authors trained it is not stated. Here each step trains both modes on priors of training clips: the VQ
loss, and one classifier of the 22 classes on the mean output token of retrieval mode and of whole-bank
mode. Codes that no prior chooses are moved onto priors, as in other VQ models; without that most of the
bank stays unused. With `use_bank: false` the same stage learns the projection of the prior alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicetalk.compute.precision import compute_device
from dicetalk.config import LearnBank, TrainingCompute
from dicetalk.data.dataset import EncodedClips
from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_directory
from dicetalk.labels import CLASSES, EMOTIONS, class_index
from dicetalk.models.backbones.files.components import read_widths
from dicetalk.models.build import build_emotion_model
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.models.emotion import EmotionModel
from dicetalk.tracking.tracker import Tracker
from dicetalk.training.bank_usage import CODE_USAGE_FILE, usage_by_emotion
from dicetalk.training.checkpoint import write_curves
from dicetalk.training.embeddings import MODALITIES, modalities_of
from dicetalk.training.loop import train
from dicetalk.training.parallel import own_slice, process_index
from dicetalk.training.priors import PriorSource, clip_priors, cosine_matrix
from dicetalk.training.timings import take_timings

RESTART_EVERY_STEPS = 20
RESTART_PART = 0.5  # of training; then the codes settle


class ClipPriors:
    """Priors of labelled clips from audio, video and both, so that the bank knows all three kinds of input.

    Attributes:
        priors: `(clips, kinds, embedding_dim)`: audio, video and both, or the one there is.
        classes: class index `(clips,)`.
    """

    def __init__(self, embedder: EmotionEmbedder, clips: EncodedClips, source: PriorSource):
        inputs = modalities_of(embedder) if source == "embedding" else MODALITIES[-1:]
        self.priors = torch.from_numpy(
            np.stack([clip_priors(source, embedder, clips, m) for m in inputs], axis=1)
        )
        table = clips.table
        pairs = zip(table["emotion"], table["level"], strict=True)
        self.classes = torch.tensor([class_index(emotion, int(level)) for emotion, level in pairs])

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Return random priors `(count, embedding_dim)` and their classes."""
        rows = rng.integers(len(self.classes), size=count)
        return self.priors[rows, rng.integers(self.priors.shape[1], size=count)], self.classes[rows]


class BankObjective:
    """VQ loss and classification through the bank.

    Args:
        emotion_model: the bank and its attention; its `classifier` belongs to the diffusion training.
        train_priors: of training identities.
        test_priors: of held-out identities.
        settings: weights of the terms, and steps.
    """

    def __init__(
        self,
        emotion_model: EmotionModel,
        train_priors: ClipPriors,
        test_priors: ClipPriors,
        settings: LearnBank,
    ):
        self.emotion_model, self.settings = emotion_model, settings
        self.train_priors, self.test_priors = train_priors, test_priors
        self.device = emotion_model.device
        self.head = nn.Linear(emotion_model.config.dim, len(CLASSES)).to(self.device)
        self.modules = {"emotion_model": emotion_model, "head": self.head}

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return one group with everything."""
        return [{"params": [p for module in self.modules.values() for p in module.parameters()], "lr": lr}]

    def loss(self, step: int, batch_size: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of one batch."""
        rng = np.random.default_rng([self.settings.training.seed, step])
        learning = self.settings.use_bank and step < RESTART_PART * self.settings.training.num_steps
        if learning and step % RESTART_EVERY_STEPS == 0:
            self.restart_unused_codes(rng)
        drawn, own = self.train_priors.draw(rng, batch_size), own_slice(batch_size)
        priors, classes = (part[own].to(self.device) for part in drawn)
        retrieved = self.emotion_model(priors[:, None], retrieval=True)
        mixed = self.emotion_model(priors[:, None], gradient_to_bank=True)
        classification = sum(F.cross_entropy(self._logits(out.tokens), classes) for out in (retrieved, mixed))
        loss = (
            self.settings.vq_weight * retrieved.vq_loss + self.settings.classification_weight * classification
        )
        return loss, {"vq": retrieved.vq_loss.item(), "classification": classification.item()}

    def validate(self, step: int) -> dict[str, float]:
        """Return accuracy in both modes and code usage on held-out identities."""
        metrics = {}
        priors = self.test_priors.priors.to(self.device)
        classes = self.test_priors.classes.to(self.device).repeat_interleave(priors.shape[1])
        for name, retrieval in (("retrieval", True), ("whole_bank", False)):
            tokens = self.emotion_model(priors, retrieval=retrieval).tokens
            accuracy = (self._logits(tokens).flatten(0, 1).argmax(-1) == classes).float().mean()
            metrics[f"class_accuracy_{name}"] = accuracy.item()
        usage = code_usage(self.emotion_model, priors) if self.settings.use_bank else {}
        return metrics | usage

    @torch.no_grad()
    def restart_unused_codes(self, rng: np.random.Generator) -> None:
        """Move codes that no training prior chooses onto random training priors."""
        bank = self.emotion_model.codebook
        priors = self.train_priors.priors.to(self.device).flatten(0, 1)
        counts = bank(priors)[2].bincount(minlength=len(bank.codebook.weight))
        unused = (counts == 0).nonzero().flatten()
        chosen = rng.choice(len(priors), len(unused), replace=len(unused) > len(priors))
        # In half precision under autocast, the codes are not.
        bank.codebook.weight[unused] = bank.fc(priors[chosen]).to(bank.codebook.weight.dtype)

    def _logits(self, tokens: Tensor) -> Tensor:
        """Classify tokens `(..., frames, num_tokens, dim)` by their mean; a single frame is squeezed."""
        return self.head(tokens.mean(-2)).squeeze(1)


@torch.no_grad()
def code_usage(emotion_model: EmotionModel, priors: Tensor) -> dict[str, float]:
    """Return how many codes `priors` `(..., embedding_dim)` choose, and their perplexity."""
    indices = emotion_model.codebook(priors)[2].flatten()
    share = indices.bincount(minlength=emotion_model.config.num_codes).double() / len(indices)
    entropy = -(share[share > 0] * share[share > 0].log()).sum()
    return {"codes_used": int((share > 0).sum()), "code_perplexity": entropy.exp().item()}


@torch.no_grad()
def bank_attention(emotion_model: EmotionModel, priors: Tensor) -> Tensor:
    """Return how whole-bank mode spreads its attention over the codes.

    Args:
        emotion_model: the bank.
        priors: `(count, embedding_dim)`.

    Returns:
        `(count, num_codes)`, each row sums to 1: mean over heads and queries, sum over a code's tokens.
    """
    query = emotion_model.emo_linear(priors)
    context = emotion_model.bank_tokens().expand(len(priors), -1, -1)
    weights = emotion_model.attention.weights(query, context).mean((1, 2))
    return weights.unflatten(-1, (emotion_model.config.num_codes, -1)).sum(-1)


def emotion_correlation(emotion_model: EmotionModel, priors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return how alike emotions read the bank: cosines of their attention over the codes, plain and centred.

    Args:
        emotion_model: the bank.
        priors: as in `models/priors.safetensors`.
    """
    means = torch.from_numpy(np.stack([priors[f"P/{emotion}"] for emotion in EMOTIONS]))
    attention = bank_attention(emotion_model, means).double().numpy()
    return {
        "emotions": list(EMOTIONS),
        "cosine": cosine_matrix(attention).round(6).tolist(),
        "cosine_centred": cosine_matrix(attention - attention.mean(0)).round(6).tolist(),
    }


def learn_bank(
    encoded: Sequence[Path],
    embedder: EmotionEmbedder,
    priors: dict[str, np.ndarray],
    prior_source: PriorSource,
    backbone: Path,
    settings: LearnBank,
    compute: TrainingCompute,
    run_dir: Path,
    output: Path,
    tracker: Tracker,
) -> dict[str, Any]:
    """Train the emotion model's bank and attention, and save it to `output`.

    Args:
        encoded: `data/encoded/<set>` of the emotional corpora.
        embedder: the trained embedder.
        priors: class means of mode P, for the correlation matrix.
        prior_source: what the priors of clips are, `priors.source`.
        backbone: `models/backbone`, whose UNet decides about token and feature widths.
        settings: the section of `params.yaml`.
        compute: its part of `compute`.
        run_dir: folder of checkpoints.
        output: `models/bank`.
        tracker: receives the curves.

    Returns:
        The stage's metrics, without a bank nothing about codes; empty on all processes but the main one,
        which saves the bank.

    Raises:
        DicetalkError: when `learn_bank.dim` is not the UNet's token width.
    """
    widths = read_widths(backbone)
    if settings.dim != widths.tokens:
        raise DicetalkError(
            f"learn_bank.dim is {settings.dim}, but the UNet of {backbone} takes tokens of width "
            f"{widths.tokens}; set learn_bank.dim to that."
        )
    device = compute_device()
    torch.set_num_threads(compute.threads)
    torch.manual_seed(settings.training.seed)
    emotion_model = build_emotion_model(settings, embedder.config.embedding_dim, widths).to(device)
    embedder.to(device)
    train_priors, test_priors = (
        ClipPriors(embedder, EncodedClips(encoded, s), prior_source) for s in ("train", "test")
    )
    objective = BankObjective(emotion_model, train_priors, test_priors, settings)
    metrics = train(objective, settings.training, compute, run_dir, tracker, "learn_bank")
    if process_index() > 0:
        return {}
    metrics = take_timings(metrics, run_dir, tracker)
    emotion_model.cpu()
    with atomic_directory(output) as folder:
        emotion_model.save_pretrained(folder)
        write_curves(run_dir, folder / "curves.csv")
        if settings.use_bank:
            usage = usage_by_emotion(emotion_model, train_priors.priors, train_priors.classes)
            usage.to_parquet(folder / CODE_USAGE_FILE, index=False)
    if not settings.use_bank:
        return {"training": metrics}
    training_usage = code_usage(emotion_model, train_priors.priors)
    return {
        "training": metrics,
        "training_identities": training_usage,
        "emotion_correlation": emotion_correlation(emotion_model, priors),
    }
