"""What the emotion discriminator reads, the picture or the emotion it is told, and up to which noise.

The discriminator sees features of a UNet that is given the emotion as a condition, so a high accuracy alone
says nothing about the picture. It is therefore asked three times about the same noisy latents of held-out
identities: told the shown class, told nothing, and told another emotion.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from dicetalk.compute.precision import autocast
from dicetalk.data.dataset import DiffusionBatch
from dicetalk.labels import CLASSES, EMOTIONS, NEUTRAL
from dicetalk.training.diffusion import SHORT_WINDOW_FRAMES, DiffusionObjective, Kept

SIGMAS = (0.1, 0.3, 1.0, 3.0, 10.0)
MAX_CLIPS = 256  # more would only narrow the intervals
SEED = 0
_EMOTION_OF = torch.tensor([EMOTIONS.index(emotion) for emotion, _ in CLASSES])


@torch.no_grad()
def discrimination_by_noise(objective: DiffusionObjective, batch_size: int) -> dict[str, Any]:
    """Measure how often the discriminator names the shown emotion at each noise level.

    Each clip is seen through one window of two frames. The reference image is the first frame of a neutral
    clip, as in `generate`, so that it does not give the emotion away; the noise is the same under all
    conditions.

    Args:
        objective: after training, its modules in eval mode.
        batch_size: windows that go through the network together.

    Returns:
        - `sigmas`, and `clips`, how many held-out ones were seen;
        - `chance`: share of the most frequent emotion;
        - `emotion_accuracy`, `class_accuracy`: for each condition a list over `sigmas` of
          `{"value", "ci95"}`, Wilson intervals over clips. `told`: the shown class; `untold`: dropped;
          `misled`: a class of another emotion;
        - `follows_condition`: how often the answer of `misled` is the emotion told instead.
    """
    rows, references = _clips(objective)
    shown = torch.from_numpy(objective.test_batches.classes[rows])
    other = _other_classes(shown)
    conditions = {"told": (shown, True), "untold": (shown, False), "misled": (other, True)}
    emotion_accuracy: dict[str, list[Any]] = {name: [] for name in conditions}
    class_accuracy: dict[str, list[Any]] = {name: [] for name in conditions}
    follows = []
    batches = [
        _load(objective, rows[start : start + batch_size], references[start : start + batch_size])
        for start in range(0, len(rows), batch_size)
    ]
    for sigma in SIGMAS:
        answers = {
            name: _answers(objective, batches, told, keep, sigma) for name, (told, keep) in conditions.items()
        }
        for name, found in answers.items():
            emotion_accuracy[name].append(_share(_EMOTION_OF[found] == _EMOTION_OF[shown]))
            class_accuracy[name].append(_share(found == shown))
        follows.append(_share(_EMOTION_OF[answers["misled"]] == _EMOTION_OF[other]))
    return {
        "sigmas": list(SIGMAS),
        "clips": len(rows),
        "chance": float(_EMOTION_OF[shown].bincount().max() / len(shown)),
        "emotion_accuracy": emotion_accuracy,
        "class_accuracy": class_accuracy,
        "follows_condition": follows,
    }


def _clips(objective: DiffusionObjective) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of labelled clips and, for each, of a neutral clip of its identity, which has to exist."""
    batches = objective.test_batches
    table = batches.clips.table.loc[batches.emotional]
    neutral = table[table["emotion"] == NEUTRAL].groupby("identity")["clip_id"].idxmin()
    rows = table.index[table["identity"].isin(neutral.index)].to_numpy().copy()
    if len(rows) > MAX_CLIPS:
        rows = np.sort(np.random.default_rng(SEED).choice(rows, MAX_CLIPS, replace=False))
    return rows, table.loc[rows, "identity"].map(neutral).to_numpy()


def _other_classes(classes: Tensor) -> Tensor:
    """Return for each class a random one of another emotion."""
    rng = np.random.default_rng(SEED)
    others = [np.flatnonzero(_EMOTION_OF != emotion) for emotion in _EMOTION_OF]
    return torch.tensor([int(rng.choice(others[index])) for index in classes.tolist()])


def _load(objective: DiffusionObjective, rows: np.ndarray, references: np.ndarray) -> DiffusionBatch:
    batches = objective.test_batches
    spare = batches.num_frames[rows] - 1 - batches.frames[SHORT_WINDOW_FRAMES - 1]
    first_embedded = np.zeros(len(rows), int)
    return batches.load(rows, spare // 2, references, first_embedded, SHORT_WINDOW_FRAMES)


def _answers(
    objective: DiffusionObjective, batches: list[DiffusionBatch], told: Tensor, keep: bool, sigma: float
) -> Tensor:
    """Return the class the discriminator names for each clip `(clips,)`."""
    torch.manual_seed(SEED)  # the same noise for every condition
    found = []
    counts = [len(batch.classes) for batch in batches]
    for batch, classes in zip(batches, told.split(counts), strict=True):
        everything = Kept.everything(len(classes))
        kept = everything if keep else everything.without("emotion")
        levels = torch.full((len(classes),), sigma)
        with autocast(objective.network.device, objective.settings.training.mixed_precision):
            noise = torch.randn(batch.latents.shape)
            logits = objective.predict(batch, objective.class_priors[classes], levels, kept, noise)[1]
        found.append(logits.argmax(-1).cpu())
    return torch.cat(found)


def _share(hits: Tensor) -> dict[str, Any]:
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return {"value": hits.double().mean().item(), "ci95": [float(interval.low), float(interval.high)]}
