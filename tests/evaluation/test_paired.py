from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dicetalk.evaluation.paired import paired_tests, swap_test
from dicetalk.evaluation.statistics import bootstrap_mean, rng_for


def table(system: str, values: list[float], people: int = 4) -> pd.DataFrame:
    ids = [f"c{index}" for index in range(len(values))]
    identities = [f"p{index % people}" for index in range(len(values))]
    return pd.DataFrame({"system": system, "clip_id": ids, "identity": identities, "lmd": values})


def compare(rows: pd.DataFrame, by_identity: bool = False) -> dict:
    tests = paired_tests(rows, "a", ["b"], {"lmd": "lmd", "absent": "absent"}, by_identity, 1, 2000)
    return tests["b - a"]


def test_exact_chance_of_few_clips():
    """Three differences of one sign: of 8 swaps, two are as far from zero."""
    assert swap_test(np.array([1.0, 2.0, 3.0]), ["x", "y", "z"], rng_for(0), 100) == 2 / 8
    # 1 + 2 against 3: all sums 0, 2, 4 or 6 are as far from zero as 0
    assert swap_test(np.array([1.0, 2.0, -3.0]), ["x", "y", "z"], rng_for(0), 100) == 1.0


def test_small_but_constant_gains_are_found_where_clips_differ_much():
    values = np.random.default_rng(0).normal(0, 10, 40)
    noise = np.random.default_rng(1).normal(0, 0.1, 40)
    found = compare(pd.concat([table("a", list(values)), table("b", list(values + 0.5 + noise))]))["lmd"]
    assert found["difference"] == pytest.approx(0.5, abs=0.1)
    assert 0.3 < found["ci95"][0] < found["ci95"][1] < 0.7
    assert found["p"] < 0.002 and found["n"] == 40


def test_equal_systems_are_rarely_called_different():
    rng = np.random.default_rng(2)
    found = [
        compare(pd.concat([table("a", list(rng.normal(size=12))), table("b", list(rng.normal(size=12)))]))
        for _ in range(60)
    ]
    assert sum(test["lmd"]["p"] < 0.05 for test in found) <= 8  # 3 expected


def test_people_are_swapped_as_a_whole():
    """Forty clips of two people who disagree: clips would be sure, people cannot be."""
    people = [1.0, -0.2] * 20
    rows = pd.concat([table("a", [0.0] * 40, people=2), table("b", people, people=2)])
    assert compare(rows)["lmd"]["p"] < 0.01
    assert compare(rows, by_identity=True)["lmd"]["p"] >= 0.5


def test_only_common_measured_clips_count():
    rows = pd.concat([table("a", [1.0, 2.0, 3.0]), table("b", [2.0, float("nan"), 4.0, 9.0])])
    found = compare(rows)
    assert found["lmd"]["n"] == 2 and found["lmd"]["difference"] == pytest.approx(1.0)
    assert set(found) == {"lmd"}


def test_intervals_over_people_are_wider_when_clips_of_a_person_agree():
    people = np.repeat(np.random.default_rng(3).normal(0, 1, 10), 20)
    values = list(people + np.random.default_rng(4).normal(0, 0.01, 200))
    names = [f"p{index // 20}" for index in range(200)]
    over_clips = bootstrap_mean(values, rng_for(0), 500)
    over_people = bootstrap_mean(values, rng_for(0), 500, identities=names)
    assert over_people.value == over_clips.value
    assert over_people.high - over_people.low > 3 * (over_clips.high - over_clips.low)
    assert over_people.identities == 10 and over_people.as_json()["identities"] == 10
    theory = 2 * 1.96 * np.std([np.mean(values[i * 20 : i * 20 + 20]) for i in range(10)]) / np.sqrt(10)
    assert over_people.high - over_people.low == pytest.approx(theory, rel=0.15)


def test_one_person_is_no_sample_of_people():
    estimate = bootstrap_mean([1.0, 2.0, 3.0], rng_for(0), 100, identities=["p"] * 3)
    assert estimate.identities is None and estimate.low < estimate.high
