from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.metrics.emotion import EXPRESSIVE
from dicetalk.evaluation.metrics.table import METRICS
from dicetalk.evaluation.strength import strength_differences
from dicetalk.labels import EMOTIONS

PEOPLE = ("T0", "T1", "T2")
SETTINGS = {"by_identity": False, "seed": 5, "num_samples": 400}


def table(step: float, system: str = "ours", neutral: float = 0.0) -> pd.DataFrame:
    """Clips whose strength is `step` per level above a base of the person and emotion, far larger than it."""
    rng = np.random.default_rng(2)
    rows = []
    for person in PEOPLE:
        rows.append((system, f"{person}_neutral", person, "neutral", 1, neutral))
        for emotion in EXPRESSIVE:
            base = 10 * rng.random()
            for level in (1, 2, 3):
                value = base + step * level + 0.1 * rng.standard_normal()
                rows.append((system, f"{person}_{emotion}_{level}", person, emotion, level, value))
    names = ["system", "clip_id", "identity", "emotion", "level", "expression_strength"]
    return pd.DataFrame(rows, columns=names)


def test_levels_are_compared_within_person_and_emotion():
    found = strength_differences(table(step=1.0), **SETTINGS)["ours"]
    for name in ("level 2 - level 1", "level 3 - level 2"):
        test = found[name]
        assert test["difference"] == pytest.approx(1.0, abs=0.1)
        assert test["ci95"][0] > 0.8 and test["ci95"][1] < 1.2  # though bases differ by up to 10
        assert test["n"] == len(PEOPLE) * len(EXPRESSIVE)
        assert test["p"] < 0.01


def test_equal_levels_do_not_differ():
    test = strength_differences(table(step=0.0), **SETTINGS)["ours"]["level 3 - level 2"]
    assert abs(test["difference"]) < 0.1 and test["p"] > 0.01
    assert 0.05 < test["ci95"][1] - test["ci95"][0] < 0.3  # of noise alone: 4 x 0.1 x sqrt(2 / 21) = 0.12


def test_neutral_is_compared_with_the_real_clip():
    both = pd.concat([table(1.0, "real", neutral=0.25), table(1.0, "ours", neutral=0.75)])
    found = strength_differences(both, **SETTINGS)
    assert found["ours"]["neutral - real neutral"]["difference"] == pytest.approx(0.5)
    assert found["ours"]["neutral - real neutral"]["n"] == len(PEOPLE)
    assert "neutral - real neutral" not in found["real"]


def test_several_takes_of_a_level_are_one_pair():
    once = table(1.0)
    again = once.assign(clip_id=once["clip_id"] + "b", expression_strength=once["expression_strength"] + 0.2)
    test = strength_differences(pd.concat([once, again]), **SETTINGS)["ours"]["level 2 - level 1"]
    assert test["n"] == len(PEOPLE) * len(EXPRESSIVE)


def test_nothing_measured_is_no_comparison():
    rows = table(1.0)
    assert strength_differences(rows.drop(columns="expression_strength"), **SETTINGS) == {}
    assert strength_differences(rows[rows["level"] == 3], **SETTINGS) == {}


def test_a_level_mean_needs_every_emotion():
    mean, rows = METRICS["expression_strength_level_2"].value, table(1.0)
    assert set(mean.choose(rows, EMOTIONS)["level"]) == {2}
    assert "neutral" not in set(mean.choose(rows, EMOTIONS)["emotion"])
    with pytest.raises(DicetalkError, match="sad at level 2"):
        mean.choose(rows[rows["emotion"] != "sad"], EMOTIONS)


def test_neutral_accuracy_counts_neutral_clips_only():
    rows = table(1.0).assign(emotion_correct=lambda found: (found["emotion"] == "neutral").astype(float))
    chosen = METRICS["neutral_accuracy"].value.choose(rows, EMOTIONS)
    assert len(chosen) == len(PEOPLE) and chosen["emotion_correct"].eq(1).all()
