"""Training of the in-domain metric networks on real clips; they are judged on identities they never saw."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicetalk.config import Evaluators, config_hash
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.clips import Clip, load_processed
from dicetalk.evaluation.emotion import is_correct, video_probabilities
from dicetalk.evaluation.mfcc import mfcc
from dicetalk.evaluation.networks import SIZE_PX, FrameEmotionNet, IdentityNet, normalise
from dicetalk.evaluation.store import save_network
from dicetalk.evaluation.sync import sync_score
from dicetalk.evaluation.syncnet import (
    WINDOW_FRAMES,
    InDomainSyncNet,
    audio_windows,
    lower_half,
    video_windows,
)
from dicetalk.files import atomic_directory, sha256_file
from dicetalk.labels import EMOTIONS, LEVELS
from dicetalk.training.augmentation import augment
from dicetalk.training.checkpoint import write_curves
from dicetalk.training.loop import Tracker, train

SKIN_TINT = 0.3  # the emotion network must not lean on the colours of the few training identities
CLIPS_PER_BATCH = (
    4  # the other windows of a batch come from the same clips: sound of another moment is the hard negative
)
MIN_SPACING_FRAMES = 2  # neighbouring windows share most of their frames and are no negatives
TEMPERATURE = 0.1
VALIDATION_STRIDE = 4
MAX_OFFSET_ERROR_FRAMES = 1
TIMINGS = ("seconds_per_step", "data_wait_fraction")  # they differ between runs, metric files must not


class EmotionObjective:
    """Cross-entropy of single frames over the eight emotions, each emotion drawn equally often."""

    def __init__(self, train_clips: Sequence[Clip], test_clips: Sequence[Clip], seed: int) -> None:
        self.seed = seed
        self.by_emotion = _group(train_clips, lambda clip: clip.emotion)
        if missing := set(EMOTIONS) - self.by_emotion.keys():
            raise DicetalkError(
                f"No training clip shows {', '.join(sorted(missing))}; the emotion network needs all eight."
            )
        self.test_clips = [clip for clip in test_clips if clip.emotion is not None]
        torch.manual_seed(seed)
        self.network = FrameEmotionNet()
        self.modules: dict[str, nn.Module] = {"emotion": self.network}

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """See `Objective`."""
        return [{"params": self.network.parameters(), "lr": lr}]

    def loss(self, step: int, batch_size: int) -> tuple[Tensor, dict[str, float]]:
        """See `Objective`."""
        rng = np.random.default_rng([self.seed, step])
        targets = rng.integers(len(EMOTIONS), size=batch_size)
        clips = [_choose(rng, self.by_emotion[EMOTIONS[target]]) for target in targets]
        frames = augment(_random_frames(rng, clips), tint=SKIN_TINT).squeeze(1)
        logits = self.network(_maybe_mirrored(frames))
        accuracy = (logits.argmax(dim=1) == torch.from_numpy(targets)).float().mean().item()
        return F.cross_entropy(logits, torch.from_numpy(targets), label_smoothing=0.05), {
            "accuracy": accuracy
        }

    def validate(self, step: int) -> dict[str, float]:
        """Return the video accuracy on held-out identities, over all and per level."""
        correct = [
            is_correct(video_probabilities(self.network(normalise(_strided(clip))).numpy()), clip.emotion)
            for clip in self.test_clips
        ]
        levels = np.array([clip.level for clip in self.test_clips])
        metrics = {"accuracy": float(np.mean(correct))}
        for level in LEVELS:
            if (levels == level).any():
                metrics[f"accuracy_level_{level}"] = float(np.mean(np.array(correct)[levels == level]))
        return metrics


class IdentityObjective:
    """Cosine softmax over the training identities, each drawn equally often."""

    def __init__(self, train_clips: Sequence[Clip], test_clips: Sequence[Clip], seed: int) -> None:
        self.seed = seed
        self.by_identity = _group(train_clips, lambda clip: clip.identity)
        self.identities = sorted(self.by_identity)
        self.test_clips = test_clips
        torch.manual_seed(seed)
        self.network = IdentityNet(len(self.identities))
        self.modules: dict[str, nn.Module] = {"identity": self.network}

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """See `Objective`."""
        return [{"params": self.network.parameters(), "lr": lr}]

    def loss(self, step: int, batch_size: int) -> tuple[Tensor, dict[str, float]]:
        """See `Objective`."""
        rng = np.random.default_rng([self.seed, step])
        targets = rng.integers(len(self.identities), size=batch_size)
        clips = [_choose(rng, self.by_identity[self.identities[target]]) for target in targets]
        frames = augment(_random_frames(rng, clips)).squeeze(1)
        logits = self.network(_maybe_mirrored(frames))
        accuracy = (logits.argmax(dim=1) == torch.from_numpy(targets)).float().mean().item()
        return F.cross_entropy(logits, torch.from_numpy(targets)), {"accuracy": accuracy}

    def validate(self, step: int) -> dict[str, float]:
        """Return mean cosines of clips of the same and of different held-out people, and their AUC."""
        from sklearn.metrics import roc_auc_score

        embeddings = np.stack(
            [self.network.embed(normalise(_strided(clip)[:1])).numpy()[0] for clip in self.test_clips]
        )
        names = np.array([clip.identity for clip in self.test_clips])
        first, second = np.triu_indices(len(names), k=1)
        cosines = (embeddings[first] * embeddings[second]).sum(axis=1)
        same = names[first] == names[second]
        if same.all() or not same.any():
            return {}  # a single held-out clip or identity has no pairs to compare
        return {
            "auc": float(roc_auc_score(same, cosines)),
            "cosine_same": float(cosines[same].mean(dtype=np.float64)),
            "cosine_different": float(cosines[~same].mean(dtype=np.float64)),
        }


class SyncObjective:
    """Contrastive (InfoNCE, both directions): which sound of the batch belongs to these lips?"""

    def __init__(self, train_clips: Sequence[Clip], test_clips: Sequence[Clip], seed: int) -> None:
        self.seed = seed
        self.train_clips = [clip for clip in train_clips if len(clip.frames) > WINDOW_FRAMES]
        self.audio = [audio_windows(clip.audio, len(clip.frames)) for clip in self.train_clips]
        self.test_clips = test_clips
        coefficients = np.concatenate([mfcc(clip.audio) for clip in self.train_clips])
        torch.manual_seed(seed)
        self.network = InDomainSyncNet(mfcc_mean=coefficients.mean(axis=0), mfcc_std=coefficients.std(axis=0))
        self.modules: dict[str, nn.Module] = {"sync": self.network}

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """See `Objective`."""
        return [{"params": self.network.parameters(), "lr": lr}]

    def loss(self, step: int, batch_size: int) -> tuple[Tensor, dict[str, float]]:
        """See `Objective`."""
        rng = np.random.default_rng([self.seed, step])
        frames, audio = [], []
        for index in rng.permutation(len(self.train_clips))[:CLIPS_PER_BATCH]:
            starts = _spaced_starts(rng, len(self.audio[index]), batch_size // CLIPS_PER_BATCH)
            windows = starts[:, None] + np.arange(WINDOW_FRAMES)
            frames.append(torch.from_numpy(self.train_clips[index].frames[windows]))
            audio.append(self.audio[index][starts])
        lips = lower_half(augment(normalise(torch.cat(frames))))
        similarity = (
            self.network.embed_video(lips) @ self.network.embed_audio(torch.cat(audio)).T / TEMPERATURE
        )
        targets = torch.arange(len(similarity))
        loss = (F.cross_entropy(similarity, targets) + F.cross_entropy(similarity.T, targets)) / 2
        return loss, {"accuracy": (similarity.argmax(dim=1) == targets).float().mean().item()}

    def validate(self, step: int) -> dict[str, float]:
        """Return sync scores of held-out clips with their own sound, and with the sound of another clip."""
        scores: dict[str, list] = {"": [], "wrong_audio_": []}
        clips = self.test_clips
        for clip, other in zip(clips, [*clips[1:], *clips[:1]], strict=True):
            video = self.network.embed_video(
                video_windows(lower_half(normalise(torch.from_numpy(clip.frames))))
            )
            for prefix, sound in (("", clip), ("wrong_audio_", other)):
                audio = self.network.embed_audio(audio_windows(sound.audio, len(sound.frames)))
                length = min(len(video), len(audio))
                scores[prefix].append(sync_score(video[:length].numpy(), audio[:length].numpy()))
        metrics = {}
        for prefix, items in scores.items():
            metrics[f"{prefix}sync_d"] = float(np.mean([score.distance for score in items]))
            metrics[f"{prefix}sync_c"] = float(np.mean([score.confidence for score in items]))
            in_time = [abs(score.offset_frames) <= MAX_OFFSET_ERROR_FRAMES for score in items]
            metrics[f"{prefix}offset_within_1_frame"] = float(np.mean(in_time))
        return metrics


OBJECTIVES: dict[str, type] = {
    "emotion": EmotionObjective,
    "identity": IdentityObjective,
    "sync": SyncObjective,
}


def train_evaluators(
    settings: Evaluators,
    folders: Sequence[Path],
    out: Path,
    runs: Path,
    tracker: Tracker | None = None,
) -> dict[str, Any]:
    """Train the emotion, identity and sync networks and write them to `out`.

    Args:
        settings: the `evaluators` section.
        folders: `data/processed/<set>` folders; their training split is learnt, their test split validates.
        out: folder for weights, configurations and curves.
        runs: folder of run directories, from which an interrupted training resumes.
        tracker: receives the curves, named `<kind>/...`.

    Returns:
        `{kind: {"name", "sha256", validation metrics...}}`.

    Raises:
        DicetalkError: for `source: published`, or data that a network cannot be trained on.
    """
    if settings.source == "published":
        raise DicetalkError(
            "evaluators.source: published metric networks (Inception, I3D, SyncNet...) cannot be used by "
            "this version yet; set evaluators.source: in-domain."
        )
    train_clips = load_processed(folders, "train", SIZE_PX)
    test_clips = load_processed(folders, "test", SIZE_PX)
    fingerprint = _fingerprint([*train_clips, *test_clips])
    results = {}
    with atomic_directory(out) as folder:
        for kind, objective_class in OBJECTIVES.items():
            training = getattr(settings, kind)
            objective = objective_class(train_clips, test_clips, training.seed)
            run_dir = runs / f"evaluators-{kind}-{config_hash(training, fingerprint)}"
            metrics = train(
                objective, training, run_dir, tracker and _NamedTracker(tracker, kind), f"evaluator {kind}"
            )
            validation = {name: value for name, value in metrics.items() if name not in TIMINGS}
            network = objective.modules[kind]
            path = save_network(folder, kind, network)
            write_curves(run_dir, folder / f"{kind}_curves.csv")
            results[kind] = {"name": network.name, "sha256": sha256_file(path), **validation}
    return results


@dataclass(frozen=True)
class _NamedTracker:
    tracker: Tracker
    kind: str

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.tracker.log_metrics({f"{self.kind}/{name}": value for name, value in metrics.items()}, step)


def _group(clips: Sequence[Clip], key: Callable[[Clip], str | None]) -> dict[str, list[Clip]]:
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        if (name := key(clip)) is not None:
            groups.setdefault(name, []).append(clip)
    return groups


def _choose(rng: np.random.Generator, clips: Sequence[Clip]) -> Clip:
    return clips[rng.integers(len(clips))]


def _random_frames(rng: np.random.Generator, clips: Sequence[Clip]) -> Tensor:
    """Return one frame of each clip, `(clips, 1, 3, height, width)` in [-1, 1]."""
    frames = np.stack([clip.frames[rng.integers(len(clip.frames))] for clip in clips])
    return normalise(torch.from_numpy(frames)).unsqueeze(1)


def _maybe_mirrored(frames: Tensor) -> Tensor:
    return torch.where(torch.rand(len(frames), 1, 1, 1) < 0.5, frames.flip(-1), frames)


def _strided(clip: Clip) -> Tensor:
    return torch.from_numpy(clip.frames[::VALIDATION_STRIDE])


def _spaced_starts(rng: np.random.Generator, num_windows: int, count: int) -> np.ndarray:
    """Draw up to `count` window starts that are at least `MIN_SPACING_FRAMES` apart."""
    grid = np.arange(rng.integers(MIN_SPACING_FRAMES), num_windows, MIN_SPACING_FRAMES)
    return rng.permutation(grid)[:count]


def _fingerprint(clips: Sequence[Clip]) -> int:
    """Return a checksum of frames, sound and labels: other data must not resume this run."""
    checksum = 0
    for clip in clips:
        checksum = zlib.crc32(f"{clip.clip_id} {clip.identity} {clip.emotion}".encode(), checksum)
        checksum = zlib.crc32(
            np.ascontiguousarray(clip.audio), zlib.crc32(np.ascontiguousarray(clip.frames), checksum)
        )
    return checksum
