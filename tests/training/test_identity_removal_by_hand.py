"""The closed forms of identity removal in one and two dimensions, by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.training import identity_removal
from dicetalk.training.identity_removal import (
    erase_identity_from_output,
    erasing_map,
    excerpts,
    fold_inputs,
    subtract_identity_from_inputs,
    without_expected_offset,
)

CLASSES, IDENTITIES = torch.tensor([0, 0, 1, 1]), torch.tensor([5, 9, 5, 9])


def test_the_expected_offset_is_subtracted() -> None:
    # Persons differ by +-3 along the first axis, classes by +-1 along both.
    vectors = torch.tensor([[4.0, 1.0], [-2.0, 1.0], [2.0, -1.0], [-4.0, -1.0]], dtype=torch.float64)
    matrix = without_expected_offset(vectors, CLASSES, IDENTITIES)
    # Offsets have variance 9 along the first axis. The rest is (1, 1) or (-1, -1): covariance 1 everywhere,
    # plus a ridge of a thousandth of the mean variance.
    between = np.array([[9.0, 0.0], [0.0, 0.0]])
    within = np.array([[1.001, 1.0], [1.0, 1.001]])
    assert matrix.numpy() == pytest.approx(within @ np.linalg.inv(between + within), rel=1e-9)


def test_groups_of_unequal_size_count_by_person() -> None:
    # A person with many clips is still one person: offsets are means over clips, their variance over people.
    vectors = torch.tensor([[2.0], [2.0], [2.0], [-2.0]], dtype=torch.float64)
    matrix = without_expected_offset(vectors, torch.tensor([0, 0, 0, 0]), torch.tensor([1, 1, 1, 2]))
    # Less the class mean of 1 they are 1 and -3, around their mean +-2: variance 4; nothing else varies.
    assert matrix.item() == pytest.approx(0.0, abs=1e-9)


def test_erasing_one_direction_leaves_the_other() -> None:
    rng = np.random.default_rng(0)
    classes, identities = torch.arange(400) % 2, torch.div(torch.arange(400), 200, rounding_mode="floor")
    values = torch.from_numpy(rng.normal(size=(400, 2)))
    values[:, 0] += 3.0 * identities  # who it is, along the first axis alone
    values += 5.0
    projection, mean = erasing_map(values, classes, identities)
    assert torch.allclose(mean, values.mean(0))
    erased = mean + (values - mean) @ projection.T
    differences = [
        erased[(classes == c) & (identities == 1)].mean(0)
        - erased[(classes == c) & (identities == 0)].mean(0)
        for c in (0, 1)
    ]
    # Over both classes people are equal on average, in every direction.
    assert torch.allclose(sum(differences) / 2, torch.zeros(2, dtype=torch.float64), atol=1e-9)
    # The change is small where people do not differ: the projection keeps the second axis.
    assert projection[1, 1].item() == pytest.approx(1.0, abs=0.02)
    assert torch.linalg.matrix_rank(projection, atol=1e-6) == 1


def test_the_least_change_is_orthogonal_in_whitened_space() -> None:
    # LEACE: `I - W^-1 P W` with `P` the orthogonal projection on the whitened cross-covariance.
    rng = np.random.default_rng(1)
    mixing = np.array([[2.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.5]])
    identities = torch.arange(300) % 2
    values = torch.from_numpy(rng.normal(size=(300, 3)) @ mixing)
    values[:, 2] += identities
    classes = torch.zeros(300, dtype=torch.long)
    projection = erasing_map(values, classes, identities)[0].numpy()
    centred = (values - values.mean(0)).numpy()
    covariance = centred.T @ centred / 300
    covariance += 1e-2 * np.trace(covariance) / 3 * np.eye(3)
    one_hot = np.stack([1.0 - identities.numpy(), identities.numpy()], 1)
    cross = centred.T @ (one_hot - one_hot.mean(0))
    axis = cross[:, :1]  # both columns say the same
    expected = np.eye(3) - axis @ axis.T @ np.linalg.inv(covariance) / (
        axis.T @ np.linalg.inv(covariance) @ axis
    )
    assert projection == pytest.approx(expected, abs=1e-8)


class Clips:
    """Clips of 10 + n frames whose excerpts say which clip and from where."""

    def __init__(self, count: int) -> None:
        self.num_frames, self.clip_frames = 10 + np.arange(count), 4
        self.classes, self.identities = np.arange(count) % 2, np.arange(count) // 2 % 2
        self.loads: list[tuple[list[int], list[int]]] = []

    def load(self, rows: np.ndarray, starts: np.ndarray) -> SimpleNamespace:
        self.loads.append((rows.tolist(), starts.tolist()))
        rng = torch.Generator().manual_seed(int(rows[0] + 1000 * starts[0]))
        count, speech = len(rows), torch.tensor(self.identities[rows]).float()
        return SimpleNamespace(
            speech=torch.randn(count, 8, 1, 2, generator=rng) + 2 * speech[:, None, None, None],
            expression=torch.randn(count, 4, 3, generator=rng) + speech[:, None, None],
            classes=torch.from_numpy(self.classes[rows]),
            identities=torch.from_numpy(self.identities[rows]),
        )


def test_excerpts_lie_at_the_beginning_middle_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_removal, "BATCH_CLIPS", 2)
    for place, starts in ((0.0, [0, 0, 0]), (0.5, [3, 4, 4]), (1.0, [6, 7, 8])):
        clips = Clips(3)
        list(excerpts(clips, place))
        assert clips.loads == [([0, 1], starts[:2]), ([2], starts[2:])]


def test_encoders_read_standardised_inputs_less_the_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    clips = Clips(8)
    embedder = EmotionEmbedder(
        1, 2, 3, embedding_dim=4, hidden_dim=8, num_layers=1, num_heads=2, clip_frames=4
    )
    embedder.expression.mean.fill_(0.5)
    embedder.expression.std.fill_(2.0)
    plain = embedder.expression.input.weight.detach().clone()
    seen = []
    monkeypatch.setattr(
        identity_removal,
        "without_expected_offset",
        lambda vectors, classes, identities: (
            seen.append((vectors, classes, identities))
            or torch.diag(torch.arange(1.0, vectors.shape[1] + 1)).double()
        ),
    )
    subtract_identity_from_inputs(embedder, clips)
    (speech, classes, identities), (expression, *_) = seen
    places = (0.0, 0.5, 1.0)
    means = [torch.cat([batch.expression.mean(1) for batch in excerpts(Clips(8), p)]) for p in places]
    assert torch.allclose(expression, ((sum(means) / 3 - 0.5) / 2.0).double(), atol=1e-6)
    assert speech.shape == (8, 4)
    assert classes.tolist() == clips.classes.tolist() and identities.tolist() == clips.identities.tolist()
    assert torch.allclose(embedder.expression.input.weight, plain * torch.tensor([1.0, 2.0, 3.0]))
    fold_inputs(embedder)
    assert torch.allclose(embedder.expression.input.weight, plain * torch.tensor([1.0, 2.0, 3.0]))
    assert isinstance(embedder.expression.input.weight, nn.Parameter)


def test_the_output_layers_are_those_of_erased_features(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    embedder = EmotionEmbedder(
        1, 2, 3, embedding_dim=4, hidden_dim=8, num_layers=1, num_heads=2, clip_frames=4
    )
    before = {name: getattr(embedder, name)(torch.ones(16)) for name in ("mu", "log_variance")}
    hidden = torch.randn(5, 16)
    layers = {
        name: (layer.weight.clone(), layer.bias.clone())
        for name, layer in embedder.named_children()
        if name in before
    }
    eraser, mean = torch.randn(16, 16).double(), torch.randn(16).double()
    seen = []
    monkeypatch.setattr(identity_removal, "erasing_map", lambda *args: seen.append(args) or (eraser, mean))
    erase_identity_from_output(embedder, Clips(4))
    erased = (mean + (hidden.double() - mean) @ eraser.T).float()
    for name, (weight, bias) in layers.items():
        expected = erased @ weight.T + bias
        assert torch.allclose(getattr(embedder, name)(hidden), expected, atol=1e-4), name
    features, classes, identities = seen[0]
    # Four clips at three places, each as audio, video and both: corpora of their own.
    assert features.shape == (36, 16)
    assert classes.tolist() == ([3 * c + m for m in range(3) for c in (0, 1, 0, 1)]) * 3
    assert identities.tolist() == ([3 * i + m for m in range(3) for i in (0, 0, 1, 1)]) * 3
