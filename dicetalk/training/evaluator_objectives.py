"""What the in-domain metric networks learn, and how well they do it on identities they never saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.clips import Clip
from dicetalk.evaluation.gradients import GradientEmotionNet
from dicetalk.evaluation.metrics.emotion import is_correct, video_probabilities
from dicetalk.evaluation.metrics.sync import sync_score
from dicetalk.evaluation.mfcc import mfcc
from dicetalk.evaluation.networks import FrameEmotionNet, IdentityNet, normalise
from dicetalk.evaluation.syncnet import (
    WINDOW_FRAMES,
    InDomainSyncNet,
    audio_windows,
    mouth_region,
    video_windows,
)
from dicetalk.labels import EMOTIONS, LEVELS, NEUTRAL
from dicetalk.training.augmentation import augment

EMOTION_TINT = 0.3  # the emotion network must not lean on the colours of a few training identities
IDENTITY_TINT = 0.1  # skin colour is evidence, exact hue is lighting
LABEL_SMOOTHING = 0.05
STRENGTH_WEIGHT = 0.5  # of the squared error in levels, beside the cross-entropy
CLIPS_PER_BATCH, MIN_WINDOWS_PER_CLIP = 8, 2  # windows of one clip are each other's hard negatives
MIN_SPACING_FRAMES = 2  # neighbouring windows share most of their frames and are no negatives
TEMPERATURE = 0.1
VALIDATION_STRIDE = 4
MAX_OFFSET_ERROR_FRAMES = 1


class _WholeNetwork:
    """Training of all of one network, wherever it is."""

    network: nn.Module

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """See `Objective`."""
        return [{"params": self.network.parameters(), "lr": lr}]

    @property
    def device(self) -> torch.device:
        """Return where the network is."""
        return next(self.network.parameters()).device


class FrameClassification(_WholeNetwork):
    """Cross-entropy of single frames, every class drawn equally often; computed where the network is.

    Args:
        kind: name of the network.
        network: maps frames `(batch, 3, 64, 64)` to logits `(batch, classes)`.
        classes: the training clips of each class.
        seed: every batch derives from it and the step.
        tint: see `augment`.
        label_smoothing: of the cross-entropy.
    """

    def __init__(
        self,
        kind: str,
        network: nn.Module,
        classes: Sequence[Sequence[Clip]],
        seed: int,
        tint: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        self.network, self.modules = network, {kind: network}
        self.classes, self.seed = classes, seed
        self.tint, self.label_smoothing = tint, label_smoothing

    def draw(self, step: int, batch_size: int) -> tuple[Tensor, Tensor, list[Clip]]:
        """Return augmented frames `(batch, 3, 64, 64)`, their classes `(batch,)` and clips."""
        rng = np.random.default_rng([self.seed, step])
        targets = rng.integers(len(self.classes), size=batch_size)
        clips = [_choose(rng, self.classes[target]) for target in targets]
        frames = torch.from_numpy(np.stack([_choose(rng, clip.frames) for clip in clips]))
        frames = augment(normalise(frames).unsqueeze(1), self.tint).squeeze(1)
        frames = torch.where(torch.rand(batch_size, 1, 1, 1) < 0.5, frames.flip(-1), frames)
        return frames.to(self.device), torch.from_numpy(targets).to(self.device), clips

    def loss(self, step: int, batch_size: int) -> tuple[Tensor, dict[str, float]]:
        """See `Objective`."""
        frames, expected, _ = self.draw(step, batch_size)
        logits = self.network(frames)
        accuracy = (logits.argmax(dim=1) == expected).float().mean().item()
        return F.cross_entropy(logits, expected, label_smoothing=self.label_smoothing), {"accuracy": accuracy}


class EmotionObjective(FrameClassification):
    """Which of the eight emotions does a frame show?"""

    kind = "emotion"
    network_class: type[nn.Module] = FrameEmotionNet

    def __init__(self, train_clips: Sequence[Clip], test_clips: Sequence[Clip], seed: int) -> None:
        classes = [[clip for clip in train_clips if clip.emotion == emotion] for emotion in EMOTIONS]
        if missing := [emotion for emotion, clips in zip(EMOTIONS, classes, strict=True) if not clips]:
            raise DicetalkError(
                f"No training clip shows {', '.join(missing)}; all eight emotions are needed."
            )
        torch.manual_seed(seed)
        super().__init__(self.kind, self.network_class(), classes, seed, EMOTION_TINT, LABEL_SMOOTHING)
        self.labelled = [(clip, clip.emotion) for clip in test_clips if clip.emotion is not None]

    def validate(self, step: int) -> dict[str, float]:
        """Return the accuracy on held-out videos, over all and per level."""
        correct = np.array([self._recognises(clip, emotion) for clip, emotion in self.labelled])
        levels = np.array([clip.level for clip, _ in self.labelled])
        per_level = {
            f"accuracy_level_{k}": correct[levels == k].mean() for k in LEVELS if (levels == k).any()
        }
        return {name: float(value) for name, value in {"accuracy": correct.mean(), **per_level}.items()}

    def _recognises(self, clip: Clip, emotion: str) -> bool:
        logits = self.logits(self.sampled_frames(clip)).cpu().numpy()
        return is_correct(video_probabilities(logits), emotion)

    def sampled_frames(self, clip: Clip) -> Tensor:
        """Return every fourth frame `(frames, 3, 64, 64)` of a clip."""
        return normalise(torch.from_numpy(clip.frames[::VALIDATION_STRIDE]).to(self.device))

    def logits(self, frames: Tensor) -> Tensor:
        """Return logits `(frames, 8)`."""
        return self.network(frames)


class SecondEmotionObjective(EmotionObjective):
    """The same by another architecture, which also learns the labelled intensity of the expression."""

    kind, network_class = "emotion_second", GradientEmotionNet

    def loss(self, step: int, batch_size: int) -> tuple[Tensor, dict[str, float]]:
        """See `Objective`."""
        frames, expected, clips = self.draw(step, batch_size)
        logits, strengths = self.network(frames)
        levels = torch.tensor([intensity(clip) for clip in clips], device=self.device)
        classification = F.cross_entropy(logits, expected, label_smoothing=self.label_smoothing)
        strength = F.mse_loss(strengths.float(), levels)
        accuracy = (logits.argmax(dim=1) == expected).float().mean().item()
        return classification + STRENGTH_WEIGHT * strength, {
            "accuracy": accuracy,
            "strength_squared_error": strength.item(),
        }

    def validate(self, step: int) -> dict[str, float]:
        """Add to the accuracies the mean error of the strength of held-out videos, in levels."""
        errors = []
        for clip, _ in self.labelled:
            strengths = self.network(self.sampled_frames(clip))[1]
            errors.append(abs(strengths.mean().item() - intensity(clip)))
        return super().validate(step) | {"strength_error": float(np.mean(errors))}

    def logits(self, frames: Tensor) -> Tensor:
        """Return logits `(frames, 8)`."""
        return self.network(frames)[0]


def intensity(clip: Clip) -> float:
    """Return the labelled intensity of a clip: 0 for neutral, else its level."""
    return 0.0 if clip.emotion == NEUTRAL else float(clip.level)


class IdentityObjective(FrameClassification):
    """Which training identity is it? A cosine softmax, of which only the embedding is used afterwards."""

    def __init__(self, train_clips: Sequence[Clip], test_clips: Sequence[Clip], seed: int) -> None:
        names = sorted({clip.identity for clip in train_clips})
        classes = [[clip for clip in train_clips if clip.identity == name] for name in names]
        torch.manual_seed(seed)
        super().__init__("identity", IdentityNet(len(names)), classes, seed, IDENTITY_TINT)
        self.test_clips = test_clips

    def validate(self, step: int) -> dict[str, float]:
        """Return cosines between clips of the same and of different held-out people, and their AUC."""
        from sklearn.metrics import roc_auc_score

        first_frames = torch.from_numpy(np.stack([clip.frames[0] for clip in self.test_clips]))
        embeddings = self.network.embed(normalise(first_frames.to(self.device))).cpu().numpy()
        names = np.array([clip.identity for clip in self.test_clips])
        first, second = np.triu_indices(len(names), k=1)
        cosines = (embeddings[first] * embeddings[second]).sum(axis=1)
        same = names[first] == names[second]
        if same.all() or not same.any():
            return {}  # one held-out clip or person: there is nothing to tell apart
        return {
            "auc": float(roc_auc_score(same, cosines)),
            "cosine_same": float(cosines[same].mean(dtype=np.float64)),
            "cosine_different": float(cosines[~same].mean(dtype=np.float64)),
        }


class SyncObjective(_WholeNetwork):
    """Contrastive (InfoNCE, both directions): which sound of the batch belongs to these lips?"""

    def __init__(self, train_clips: Sequence[Clip], test_clips: Sequence[Clip], seed: int) -> None:
        self.seed = seed
        self.train_clips = [clip for clip in train_clips if len(clip.frames) > WINDOW_FRAMES]
        self.test_clips = [clip for clip in test_clips if len(clip.frames) > WINDOW_FRAMES]
        self.audio = [audio_windows(clip.audio, len(clip.frames)) for clip in self.train_clips]
        coefficients = np.concatenate([mfcc(clip.audio) for clip in self.train_clips])
        torch.manual_seed(seed)
        self.network = InDomainSyncNet(mfcc_mean=coefficients.mean(axis=0), mfcc_std=coefficients.std(axis=0))
        self.modules: dict[str, nn.Module] = {"sync": self.network}

    def loss(self, step: int, batch_size: int) -> tuple[Tensor, dict[str, float]]:
        """See `Objective`."""
        rng = np.random.default_rng([self.seed, step])
        num_windows = max(batch_size // CLIPS_PER_BATCH, MIN_WINDOWS_PER_CLIP)
        frames, audio = [], []
        for index in rng.permutation(len(self.train_clips))[: batch_size // num_windows]:
            grid = np.arange(rng.integers(MIN_SPACING_FRAMES), len(self.audio[index]), MIN_SPACING_FRAMES)
            starts = rng.permutation(grid)[:num_windows]
            windows = starts[:, None] + np.arange(WINDOW_FRAMES)
            frames.append(torch.from_numpy(self.train_clips[index].frames[windows]))
            audio.append(self.audio[index][starts])
        lips = augment(mouth_region(normalise(torch.cat(frames)))).to(self.device)
        sound = torch.cat(audio).to(self.device)
        similarity = self.network.embed_video(lips) @ self.network.embed_audio(sound).T / TEMPERATURE
        expected = torch.arange(len(similarity), device=self.device)
        loss = (F.cross_entropy(similarity, expected) + F.cross_entropy(similarity.T, expected)) / 2
        return loss, {"accuracy": (similarity.argmax(dim=1) == expected).float().mean().item()}

    def validate(self, step: int) -> dict[str, float]:
        """Return sync scores of held-out clips with their own sound, and with the sound of another clip."""
        lips, sounds = [], []
        for clip in self.test_clips:
            frames = normalise(torch.from_numpy(clip.frames).to(self.device))
            audio = audio_windows(clip.audio, len(clip.frames)).to(self.device)
            lips.append(self.network.embed_video(video_windows(mouth_region(frames))).cpu())
            sounds.append(self.network.embed_audio(audio).cpu())
        metrics = {}
        for prefix, heard in {"": sounds, "wrong_audio_": [*sounds[1:], *sounds[:1]]}.items():
            scores = []
            for video, audio in zip(lips, heard, strict=True):
                length = min(len(video), len(audio))
                scores.append(sync_score(video[:length].numpy(), audio[:length].numpy()))
            in_time = [abs(score.offset_frames) <= MAX_OFFSET_ERROR_FRAMES for score in scores]
            metrics[f"{prefix}sync_d"] = float(np.mean([score.distance for score in scores]))
            metrics[f"{prefix}sync_c"] = float(np.mean([score.confidence for score in scores]))
            metrics[f"{prefix}offset_within_1_frame"] = float(np.mean(in_time))
        return metrics


def _choose(rng: np.random.Generator, items: Sequence[Any] | np.ndarray) -> Any:
    return items[int(rng.integers(len(items)))]
