"""What the emotion embedding knows: emotions of unseen people yes, who is speaking no.

The paper's table 5 reports a "clustering strength" without a formula (in what we could read); ours is
defined in `clustering_strength` and comparable in spirit only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from dicetalk.data.dataset import EncodedClips
from dicetalk.labels import CLASSES, EMOTIONS, class_index, emotion_index
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.training.embeddings import embed_clips, modalities_of


def embedder_metrics(embedder: EmotionEmbedder, train: EncodedClips, test: EncodedClips) -> dict[str, Any]:
    """Measure an embedder on identities it was not trained on.

    Returns:
        - `class_accuracy`, `emotion_accuracy`: of linear probes fitted on the training identities and scored
          on the held-out ones, from audio, video, both (or the one there is), and from the plain input
          features (`features`), with `chance`;
        - `identity_accuracy`: of linear probes that name the training identity, fitted on one half of the
          classes and scored on the other, from `mu` and from the plain features, with `chance`;
        - `clustering_strength`: per emotion on the held-out identities, see that function.
    """
    sides = {"train": train, "test": test}
    classes = {side: _labels(clips, class_index) for side, clips in sides.items()}
    emotions = {
        side: _labels(clips, lambda emotion, _: emotion_index(emotion)) for side, clips in sides.items()
    }
    vectors = {
        str(name): (embed_clips(embedder, train, name), embed_clips(embedder, test, name))
        for name in modalities_of(embedder)
    }
    inputs = {**vectors, "features": (plain_features(train), plain_features(test))}

    identities = np.unique(train.table["identity"].to_numpy(str), return_inverse=True)[1]
    even = classes["train"] % 2 == 0
    held_out = test.table["identity"].to_numpy(str)
    return {
        "held_out_identities": len(np.unique(held_out)),
        "class_accuracy": {
            name: probe_accuracy(*x, classes["train"], classes["test"]) for name, x in inputs.items()
        }
        | {"chance": 1 / len(CLASSES)},
        "emotion_accuracy": {
            name: probe_accuracy(*x, emotions["train"], emotions["test"]) for name, x in inputs.items()
        }
        | {"chance": _majority(emotions["test"])},
        "identity_accuracy": {
            name: probe_accuracy(x[even], x[~even], identities[even], identities[~even])
            for name, x in (("mu", list(vectors.values())[-1][0]), ("features", inputs["features"][0]))
        }
        | {"chance": _majority(identities[~even])},
        "clustering_strength": {
            name: clustering_strength(x[1], emotions["test"], held_out) for name, x in vectors.items()
        },
    }


def probe_accuracy(
    train: np.ndarray, test: np.ndarray, train_labels: np.ndarray, test_labels: np.ndarray
) -> float:
    """Return the test accuracy of logistic regression on standardised vectors `(clips, dim)`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(probe.fit(train, train_labels).score(test, test_labels))


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


def _labels(clips: EncodedClips, index) -> np.ndarray:
    pairs = zip(clips.table["emotion"], clips.table["level"], strict=True)
    return np.array([index(emotion, int(level)) for emotion, level in pairs])


def _majority(labels: np.ndarray) -> float:
    return float(np.bincount(labels).max() / len(labels))
