"""The emotion embeddings of all clips in a plane, coloured by emotion and by identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dicetalk.compute.precision import fixed_threads
from dicetalk.labels import EMOTIONS
from dicetalk.report.figure import Figure
from dicetalk.report.plots import MARKS, Point, mark_sample, scatter

MAX_CLIPS = 1500  # t-SNE takes minutes for many more
PERPLEXITY, SEED = 30.0, 0


def embedding_map(path: Path, probes: dict[str, Any]) -> Figure | None:
    """Draw `models/embedder/embeddings.parquet`; None where there is none.

    Args:
        path: the table, see `dicetalk.training.embeddings.embedding_table`.
        probes: content of `metrics/train_embedder.json`.
    """
    if not path.is_file():
        return None
    table = pd.read_parquet(path)
    if len(table) > MAX_CLIPS:
        table = table.sample(MAX_CLIPS, random_state=SEED).sort_index()
    places = project(np.stack(table["mu"].to_list()))
    held_out = (table["split"] == "test").to_numpy()
    emotions = [EMOTIONS.index(emotion) for emotion in table["emotion"]]
    styles = identity_styles(table)
    by_emotion = [
        Point(x, y, f"var(--emotion-{emotion})", emotion, bool(marked))
        for (x, y), emotion, marked in zip(places, emotions, held_out, strict=True)
    ]
    by_identity = [
        Point(x, y, *styles[identity], bool(marked))
        for (x, y), identity, marked in zip(places, table["identity"], held_out, strict=True)
    ]
    description = f"{len(table)} clips; the probe accuracies in the table say what can be read from them."
    legend = [(mark_sample(f"var(--emotion-{i})", i), name) for i, name in enumerate(EMOTIONS)]
    legend += [
        (mark_sample(*styles[name]), f"{name}, held out")
        for name in sorted(table["identity"][held_out].unique())
    ]
    legend.append(
        (mark_sample("var(--floor)", 0, False), "small: training identities, a hue each on the right")
    )
    return Figure(
        "Map of the emotion embedding",
        f"Mean embedding of {len(table)} clips by t-SNE (perplexity {PERPLEXITY:g}, started from"
        " the two principal"
        " components). Left: coloured by emotion; right: the same places coloured by identity."
        " Large marks with an"
        " outline are people the embedder was not trained on. Emotions should form groups,"
        " identities should not."
        " t-SNE keeps neighbours and distorts distances: the probes, in the full space, are the measurement.",
        [
            scatter("Emotion embedding coloured by emotion", description, by_emotion),
            scatter("Emotion embedding coloured by identity", description, by_identity),
        ],
        ["Linear probe", "reads", "accuracy", "chance"],
        probe_rows(probes),
        legend,
    )


def project(vectors: np.ndarray) -> np.ndarray:
    """Return places `(clips, 2)` of vectors `(clips, dim)` such that neighbours stay neighbours."""
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    with fixed_threads():  # not the whole function: what it imports cannot be bounded earlier
        return TSNE(perplexity=perplexity, init="pca", random_state=SEED).fit_transform(vectors)


def identity_styles(table: pd.DataFrame) -> dict[str, tuple[str, int]]:
    """Return colour and mark of each identity: hues around the circle, marks that differ where held out.

    Args:
        table: with `identity` and `split`.
    """
    training = sorted(table["identity"][table["split"] != "test"].unique())
    held_out = sorted(table["identity"][table["split"] == "test"].unique())
    styles = {
        name: (f"hsl({360 * number / len(training):.0f} 55% 55%)", 0) for number, name in enumerate(training)
    }
    for number, name in enumerate(held_out):
        styles[name] = (f"var(--emotion-{number % len(EMOTIONS)})", number % len(MARKS))
    return styles


def probe_rows(probes: dict[str, Any]) -> list[list[str]]:
    """Return the probes that belong to the map as rows of name, what they read, accuracy and chance."""
    rows = []
    for label, key in (
        ("8 emotions, held-out people", "emotion_accuracy"),
        ("identity", "identity_accuracy"),
    ):
        values = probes[key]
        for name, value in values.items():
            if name != "chance":
                source = {"features": "input features", "both": "mu of audio + video"}.get(name, name)
                rows.append([label, source, accuracy_text(value), accuracy_text(values["chance"])])
    return rows


def accuracy_text(value: Any) -> str:
    """Return a share as text: a number, or `{"value", "ci95"}` with its interval."""
    if isinstance(value, dict):
        low, high = value["ci95"]
        return f"{value['value']:.3f} [{low:.3f} to {high:.3f}]"
    return f"{value:.3f}"
