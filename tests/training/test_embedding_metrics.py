"""What is said of embeddings, with embeddings that are known to tell class, emotion or person."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from dicetalk.labels import CLASSES, EMOTIONS
from dicetalk.training import embedder_metrics as module
from dicetalk.training import embeddings
from dicetalk.training.embedder_metrics import _majority, embedder_metrics
from dicetalk.training.embeddings import embed_clips, embedding_table, modalities_of


class Clips:
    """Two people and every class; speech and expression of row r have `lengths[r]` frames of value r."""

    def __init__(self, people: tuple[str, str], lengths: list[int] | None = None) -> None:
        rows = [(name, *pair) for name in people for pair in CLASSES]
        self.table = pd.DataFrame(rows, columns=["identity", "emotion", "level"])
        self.table["clip_id"] = [f"{i}-{e}-{v}" for i, e, v in rows]
        self.lengths = lengths or [3] * len(rows)

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, row: int, name: str) -> np.ndarray:
        length = self.lengths[row] * (2 if name == "speech" else 1)
        return np.full((length, 1, 1) if name == "speech" else (length, 1), float(row), np.float32)


TRAIN, TEST = Clips(("A", "B")), Clips(("C", "D"))
CLASS, PERSON = np.tile(np.arange(22), 2), np.repeat([0, 1], 22)
EMOTION = np.array([EMOTIONS.index(emotion) for emotion, _ in CLASSES])[CLASS]


def test_probes_are_fitted_on_training_people_and_asked_about_others(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {"both": np.eye(22)[CLASS], "video": np.eye(8)[EMOTION], "audio": np.eye(2)[PERSON]}
    monkeypatch.setattr(module, "embed_clips", lambda embedder, clips, name: shown[name])
    # Plain features are turned round in the test set: whatever is learned from the others is wrong there.
    monkeypatch.setattr(
        module, "plain_features", lambda clips: (1 if clips is TRAIN else -1) * (np.eye(22)[CLASS] - 1 / 22)
    )
    embedder = SimpleNamespace(config=SimpleNamespace(modalities="both"))
    found = embedder_metrics(embedder, TRAIN, TEST, 0)
    accuracy = found["class_accuracy"]
    assert (
        accuracy["both"] == 1.0 and accuracy["features"] == 0.0 and accuracy["audio"] == pytest.approx(1 / 22)
    )
    assert accuracy["video"] == pytest.approx(8 / 22)  # one level of each emotion
    assert accuracy["chance"] == pytest.approx(1 / 22)
    assert found["emotion_accuracy"]["video"] == 1.0
    assert found["emotion_accuracy"]["chance"] == pytest.approx(3 / 22)
    for key in ("identity_accuracy", "held_out_identity_accuracy"):
        assert set(found[key]) == {"mu", "mu_audio", "mu_video", "features", "chance"}
        assert found[key]["mu_audio"] == 1.0 and found[key]["chance"] == 0.5
        assert found[key]["mu"] == found[key]["mu_video"] == 0.5  # both people look alike
    assert found["held_out_identities"] == 2
    interval = found["intervals"]["emotion_accuracy"]["video"]
    assert interval == {"value": 1.0, "ci95": [1.0, 1.0], "n": 44, "identities": 2}
    # Equal vectors within an emotion, one-hot ones apart: infinitely strong, but for the floor of 1e-12.
    assert found["clustering_strength"]["video"]["sad"] == pytest.approx(np.sqrt(2) / 1e-12)


def test_identities_of_either_side_are_asked_about_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    by_side = {id(TRAIN): np.eye(2)[PERSON], id(TEST): np.zeros((44, 2))}
    monkeypatch.setattr(module, "embed_clips", lambda embedder, clips, name: by_side[id(clips)])
    embedder = SimpleNamespace(config=SimpleNamespace(modalities="audio"))
    found = embedder_metrics(embedder, TRAIN, TEST, 0)
    assert found["identity_accuracy"]["mu"] == 1.0 and found["held_out_identity_accuracy"]["mu"] == 0.5
    assert set(found["identity_accuracy"]) == {"mu", "features", "chance"}


def test_the_most_frequent_label_is_right_by_chance() -> None:
    assert _majority(np.array(["a", "b", "a", "c"])) == 0.5


class Embedder:
    """Says the mean of its input over a window, and that of speech a thousandfold."""

    def __init__(self, modalities: str = "both") -> None:
        self.config, self.sizes = SimpleNamespace(embedding_dim=2, modalities=modalities), []
        self.training = True

    def eval(self) -> None:
        self.training = False

    def windows(
        self, speech: Tensor | None, expression: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """A window of three frames from the start and, of longer clips, one that is a tenth more."""

        def cut(features: Tensor | None, per_frame: int) -> Tensor | None:
            if features is None:
                return None
            first = features[: 3 * per_frame]
            return torch.stack([first, first + 0.1] if len(features) > 3 * per_frame else [first])

        return cut(speech, 2), cut(expression, 1)

    def __call__(self, speech: Tensor | None, expression: Tensor | None) -> SimpleNamespace:
        assert not self.training
        self.sizes.append(len(expression if speech is None else speech))
        parts = [None if x is None else x.flatten(1).mean(1) for x in (speech, expression)]
        given = next(x for x in parts if x is not None)
        heard, seen = (torch.zeros_like(given) if x is None else x for x in parts)
        return SimpleNamespace(mu=torch.stack([1000 * heard, seen], 1))


def test_clips_are_embedded_as_the_mean_over_their_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "BATCH_CLIPS", 3)
    clips, embedder = Clips(("A", "B"), [3, 5, 2, 6, 3]), Embedder()
    # Windows of both lengths of the first three clips (one has two frames), then those of the other two.
    vectors = embed_clips(embedder, clips)
    assert embedder.sizes == [1, 3, 3]
    expected = [[0, 0], [1050, 1.05], [2000, 2], [3050, 3.05], [4000, 4]]
    assert vectors == pytest.approx(np.array(expected), rel=1e-5) and vectors.dtype == np.float32
    assert embed_clips(embedder, clips, "audio")[:, 1].tolist() == [0.0] * 5
    video = embed_clips(embedder, clips, "video")
    assert not video[:, 0].any() and video[:, 1] == pytest.approx([0, 1.05, 2, 3.05, 4])
    assert modalities_of(embedder) == ("audio", "video", "both")
    assert modalities_of(Embedder("audio")) == ("audio",)


def test_the_table_of_embeddings_has_labels_and_splits() -> None:
    table = embedding_table(Embedder(), {"train": TRAIN, "test": TEST})
    assert list(table.columns) == ["clip_id", "identity", "emotion", "level", "split", "mu"]
    assert table["split"].tolist() == ["train"] * 44 + ["test"] * 44 and table.index.tolist() == list(
        range(88)
    )
    assert table.at[45, "clip_id"] == "C-angry-2" and table.at[45, "mu"].tolist() == [1000.0, 1.0]
