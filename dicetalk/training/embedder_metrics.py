"""Does the embedding tell the emotions of unseen people apart, and does it hide who is speaking?

The paper's table 5 reports a "clustering strength", but we found no formula for it. Ours is defined in
`clustering_strength`; the two numbers share the idea and cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from dicetalk.compute.precision import fixed_threads
from dicetalk.data.dataset import EncodedClips
from dicetalk.evaluation.statistics import bootstrap_mean, rng_for
from dicetalk.labels import CLASSES, EMOTIONS, class_index, emotion_index
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.training.embeddings import embed_clips, modalities_of

BOOTSTRAP_SAMPLES = 1000


@fixed_threads()
def embedder_metrics(
    embedder: EmotionEmbedder, train: EncodedClips, test: EncodedClips, seed: int
) -> dict[str, Any]:
    """Measure an embedder on identities it was not trained on.

    Args:
        embedder: the trained model.
        train: clips of the training identities.
        test: clips of held-out identities.
        seed: of the intervals' resamples.

    Returns:
        - `class_accuracy`, `emotion_accuracy`: of linear probes fitted on the training identities and scored
          on the held-out ones, from audio, video, both (or the one there is), and from the plain input
          features (`features`), with `chance`;
        - `identity_accuracy`: of linear probes that name a training identity in classes they were not fitted
          on, from `mu` (all modalities), `mu_audio`, `mu_video` and the plain features, with `chance`. The
          removal of identity was fitted on these very people, so that this shows that it is complete, not
          that it generalises;
        - `held_out_identity_accuracy`: likewise with probes that know held-out identities only. The embedder
          has never seen them, so this shows how far its forgetting generalises;
        - `intervals`: each of those accuracies with its 95 % interval over people;
        - `clustering_strength`: per emotion on the held-out identities, see that function.
    """
    sides = {"train": train, "test": test}
    classes = {side: _labels(clips, class_index) for side, clips in sides.items()}
    emotions = {
        side: _labels(clips, lambda emotion, _: emotion_index(emotion)) for side, clips in sides.items()
    }
    people = {side: clips.table["identity"].to_numpy(str) for side, clips in sides.items()}
    vectors = {
        str(name): (embed_clips(embedder, train, name), embed_clips(embedder, test, name))
        for name in modalities_of(embedder)
    }
    inputs = {**vectors, "features": (plain_features(train), plain_features(test))}
    *single, fullest = vectors
    named = {"mu": fullest, "features": "features"} | {f"mu_{name}": name for name in single}

    # 1. Which clips each probe gets right
    hits = {
        "class_accuracy": {
            name: probe_hits(*x, classes["train"], classes["test"]) for name, x in inputs.items()
        },
        "emotion_accuracy": {
            name: probe_hits(*x, emotions["train"], emotions["test"]) for name, x in inputs.items()
        },
    }
    for key, number, side in (
        ("identity_accuracy", 0, "train"),
        ("held_out_identity_accuracy", 1, "test"),
    ):
        hits[key] = {
            name: identity_probe_hits(inputs[source][number], people[side], classes[side])
            for name, source in named.items()
        }

    # 2. Means, chance and intervals
    sides_of = {key: "train" if key == "identity_accuracy" else "test" for key in hits}
    intervals = {
        key: {
            name: bootstrap_mean(
                values.astype(float).tolist(),
                rng_for(seed, key, name),
                BOOTSTRAP_SAMPLES,
                identities=people[sides_of[key]].tolist(),
            ).as_json()
            for name, values in by_name.items()
        }
        for key, by_name in hits.items()
    }
    chance = {
        "class_accuracy": 1 / len(CLASSES),
        "emotion_accuracy": _majority(emotions["test"]),
        "identity_accuracy": _majority(people["train"]),
        "held_out_identity_accuracy": _majority(people["test"]),
    }
    accuracies = {
        key: {name: float(values.mean()) for name, values in by_name.items()} | {"chance": chance[key]}
        for key, by_name in hits.items()
    }
    return {
        "held_out_identities": len(np.unique(people["test"])),
        **accuracies,
        "intervals": intervals,
        "clustering_strength": {
            name: clustering_strength(x[1], emotions["test"], people["test"]) for name, x in vectors.items()
        },
    }


def probe_hits(
    train: np.ndarray, test: np.ndarray, train_labels: np.ndarray, test_labels: np.ndarray
) -> np.ndarray:
    """Return which test vectors `(clips, dim)` logistic regression on standardised vectors names rightly."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return probe.fit(train, train_labels).predict(test) == test_labels


def identity_probe_hits(vectors: np.ndarray, identities: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return which clips' identities probes name that were fitted on the other half of the classes."""
    if len(np.unique(identities)) == 1:
        return np.ones(len(vectors), bool)  # one person is always named, and so is it by chance
    even = classes % 2 == 0
    hits = np.zeros(len(vectors), bool)
    for fitted in (even, ~even):
        hits[~fitted] = probe_hits(vectors[fitted], vectors[~fitted], identities[fitted], identities[~fitted])
    return hits


def clustering_strength(
    vectors: np.ndarray, emotions: np.ndarray, identities: np.ndarray
) -> dict[str, float]:
    """Return, per emotion, the mean distance to other emotions over the mean distance within the emotion.

    Distances are Euclidean and only between clips of different identities; 1 means no clustering.

    Args:
        vectors: `(clips, dim)`.
        emotions: index into `EMOTIONS` `(clips,)`.
        identities: `(clips,)`.
    """
    distances = cdist(vectors, vectors)
    others = identities[:, None] != identities
    strengths = {}
    for index in np.unique(emotions):
        own = emotions == index
        within = distances[np.outer(own, own) & others]
        between = distances[np.outer(own, ~own) & others]
        if len(within) and len(between):
            strengths[EMOTIONS[index]] = float(between.mean() / max(within.mean(), 1e-12))
    return strengths


def plain_features(clips: EncodedClips) -> np.ndarray:
    """Return mean and deviation over time of each clip's speech and expression features `(clips, dim)`."""
    rows = []
    for row in range(len(clips)):
        arrays = [clips.read(row, name).astype(np.float32) for name in ("speech", "expression")]
        arrays = [values.reshape(len(values), -1) for values in arrays]
        rows.append(
            np.concatenate(
                [statistic(values, axis=0) for values in arrays for statistic in (np.mean, np.std)]
            )
        )
    return np.stack(rows)


def _labels(clips: EncodedClips, index: Callable[[str, int], int]) -> np.ndarray:
    pairs = zip(clips.table["emotion"], clips.table["level"], strict=True)
    return np.array([index(emotion, int(level)) for emotion, level in pairs])


def _majority(labels: np.ndarray) -> float:
    return float(np.unique(labels, return_counts=True)[1].max() / len(labels))
