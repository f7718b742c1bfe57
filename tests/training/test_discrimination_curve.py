"""The discrimination curve, measured with discriminators whose answers are known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from dicetalk.labels import CLASSES, EMOTIONS
from dicetalk.training import discrimination
from dicetalk.training.discrimination import discrimination_by_noise

EMOTION_OF = [EMOTIONS.index(emotion) for emotion, _ in CLASSES]
FRAMES = np.array([0, 2, 4, 6])  # of a window, at 25 fps


def batches(identities: int = 3) -> SimpleNamespace:
    """One clip per person and class, the last person without neutral; clip n has 10 + n frames."""
    rows = [(f"M{i}", *pair) for i in range(identities) for pair in CLASSES]
    rows = [row for row in rows if row[:2] != (f"M{identities - 1}", "neutral")] + [("RD", None, 0)]
    table = pd.DataFrame(rows, columns=["identity", "emotion", "level"])
    table["clip_id"] = [f"{i}-{e}-{v}" for i, e, v in rows]
    classes = np.array([CLASSES.index((e, v)) if e else -1 for _, e, v in rows])
    loads = []

    def load(rows, starts, references, first_embedded, num_frames):
        loads.append((rows, starts, references, first_embedded, num_frames))
        return SimpleNamespace(
            latents=torch.zeros(len(rows), 2, 1, 1, 1), classes=torch.from_numpy(classes[rows])
        )

    return SimpleNamespace(
        clips=SimpleNamespace(table=table),
        emotional=np.flatnonzero(classes >= 0),
        classes=classes,
        num_frames=10 + np.arange(len(rows)),
        frames=FRAMES,
        load=load,
        loads=loads,
    )


class Objective:
    """`answer` maps (shown, told class or -1) to the class the discriminator names."""

    def __init__(self, answer) -> None:
        self.test_batches, self.answer = batches(), answer
        self.network = SimpleNamespace(device=torch.device("cpu"))
        self.settings = SimpleNamespace(training=SimpleNamespace(mixed_precision="no"))
        self.class_priors = torch.arange(len(CLASSES))[:, None]
        self.noises, self.levels = [], []

    def predict(self, batch, priors, levels, kept, noise):
        assert kept["audio"].all() and kept["image"].all() and noise.shape == batch.latents.shape
        told = torch.where(kept["emotion"], priors[:, 0], -1)
        self.noises.append(noise)
        self.levels.append(levels.unique().item())
        named = [self.answer(s, t) for s, t in zip(batch.classes.tolist(), told.tolist(), strict=True)]
        return None, torch.nn.functional.one_hot(torch.tensor(named), len(CLASSES))


def values(entries: list[dict]) -> list[float]:
    return [entry["value"] for entry in entries]


def test_a_discriminator_that_only_repeats_what_it_is_told() -> None:
    found = discrimination_by_noise(Objective(lambda shown, told: told if told >= 0 else 0), 8)
    assert found["sigmas"] == [0.1, 0.3, 1.0, 3.0, 10.0]
    assert values(found["emotion_accuracy"]["told"]) == values(found["class_accuracy"]["told"]) == [1.0] * 5
    assert values(found["emotion_accuracy"]["misled"]) == [0.0] * 5
    assert values(found["follows_condition"]) == [1.0] * 5
    # Told nothing it names `angry 1`: of the 44 clips of two people 6 are angry, 2 of them of level 1.
    assert found["clips"] == 44
    assert values(found["emotion_accuracy"]["untold"]) == pytest.approx([6 / 44] * 5)
    assert values(found["class_accuracy"]["untold"]) == pytest.approx([2 / 44] * 5)
    assert found["chance"] == pytest.approx(6 / 44)


def test_a_discriminator_that_reads_the_picture_but_not_the_level() -> None:
    found = discrimination_by_noise(Objective(lambda shown, told: EMOTION_OF.index(EMOTION_OF[shown])), 100)
    for condition in ("told", "untold", "misled"):
        assert values(found["emotion_accuracy"][condition]) == [1.0] * 5
        assert values(found["class_accuracy"][condition]) == pytest.approx([16 / 44] * 5)  # the first levels
    assert values(found["follows_condition"]) == [0.0] * 5
    low, high = found["emotion_accuracy"]["told"][0]["ci95"]
    z2 = 1.959964**2  # Wilson's interval of 44 hits out of 44
    assert high == pytest.approx(1.0) and low == pytest.approx(44 / (44 + z2), rel=1e-4)


def test_windows_lie_in_the_middle_beside_the_persons_neutral_picture() -> None:
    objective = Objective(lambda shown, told: 0)
    discrimination_by_noise(objective, 30)
    loads = objective.test_batches.loads
    assert [len(rows) for rows, *_ in loads] == [30, 14]
    table = objective.test_batches.clips.table
    for rows, starts, references, first_embedded, num_frames in loads:
        assert num_frames == 2 and not first_embedded.any()
        # Two frames span 2 + 1 of the clip's 10 + n.
        assert starts.tolist() == [(10 + row - 3) // 2 for row in rows]
        shown = table.loc[references]
        assert (shown["emotion"] == "neutral").all()
        assert shown["identity"].tolist() == table.loc[rows, "identity"].tolist()
    assert sorted(set(objective.levels)) == pytest.approx([0.1, 0.3, 1.0, 3.0, 10.0])
    # All conditions and levels see the same noise, and each batch its own.
    first, second = objective.noises[0::2], objective.noises[1::2]
    assert len(first) == 15
    assert all(torch.equal(noise, first[0]) for noise in first)
    assert not torch.equal(first[0][:14], second[0])


def test_many_clips_are_sampled_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrimination, "MAX_CLIPS", 20)
    objective = Objective(lambda shown, told: 0)
    assert discrimination_by_noise(objective, 50)["clips"] == 20
    (rows, *_) = objective.test_batches.loads[0]
    assert len(set(rows)) == 20 and (np.diff(rows) > 0).all()
    monkeypatch.setattr(discrimination, "MAX_CLIPS", 44)
    assert discrimination_by_noise(Objective(lambda shown, told: 0), 50)["clips"] == 44


def test_other_classes_are_of_another_emotion() -> None:
    classes = torch.arange(len(CLASSES)).repeat(40)
    others = discrimination._other_classes(classes)
    own = torch.tensor(EMOTION_OF)
    assert (own[others] != own[classes]).all() and len(set(others.tolist())) == len(CLASSES)


def test_shares_carry_wilson_intervals() -> None:
    share = discrimination._share(torch.tensor([True, False, False, False, True, False, False, False]))
    n, p, z = 8, 0.25, 1.959964
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = [(centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)]
    assert share == {"value": 0.25, "ci95": pytest.approx(expected, rel=1e-5)}
