"""Intervals, tests of differences and corrections against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.paired import paired_tests, swap_test
from dicetalk.evaluation.statistics import bootstrap_mean, holm, jackknife_statistic, rng_for
from dicetalk.evaluation.strength import strength_differences


def test_a_mean_over_clips_has_its_percentile_interval() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    estimate = bootstrap_mean(values.tolist(), np.random.default_rng(1), 20_000)
    error = values.std() / 20  # of the mean of 400
    assert estimate.value == pytest.approx(values.mean()) and estimate.n == 400
    assert estimate.low == pytest.approx(values.mean() - 1.96 * error, abs=0.008)
    assert estimate.high == pytest.approx(values.mean() + 1.96 * error, abs=0.008)
    assert estimate.identities is None and "identities" not in estimate.as_json()
    assert estimate.as_json() == {"value": estimate.value, "ci95": [estimate.low, estimate.high], "n": 400}


def test_strata_count_equally_and_are_resampled_apart() -> None:
    values, strata = [0.0] * 9 + [10.0], ["a"] * 9 + ["b"]
    estimate = bootstrap_mean(values, np.random.default_rng(0), 200, strata)
    assert (estimate.value, estimate.low, estimate.high) == (5.0, 5.0, 5.0)


def test_people_are_resampled_with_all_their_clips() -> None:
    people = ["A"] * 3 + ["B"]
    estimate = bootstrap_mean([0.0, 0.0, 0.0, 8.0], np.random.default_rng(0), 4000, identities=people)
    # A twice, A and B, B twice: means of 0, 2 and 8 in a quarter, a half and a quarter of the cases.
    assert (estimate.value, estimate.low, estimate.high) == (2.0, 0.0, 8.0) and estimate.identities == 2
    middle = bootstrap_mean([0.0, 0.0, 0.0, 8.0], np.random.default_rng(0), 1, identities=people)
    assert middle.low in (0.0, 2.0, 8.0)
    # A stratum that nobody drawn has is no mean: only draws of both people count.
    strata = ["x", "x", "x", "y"]
    both = bootstrap_mean([0.0, 0.0, 3.0, 8.0], np.random.default_rng(0), 300, strata, people)
    assert (both.value, both.low, both.high) == (4.5, 4.5, 4.5)
    single = bootstrap_mean([0.0, 8.0], np.random.default_rng(0), 3000, identities=["A", "A"])
    assert single.identities is None and (single.low, single.high) == (0.0, 8.0)


def test_unusable_values_are_refused() -> None:
    for bad in ([], [1.0, math.nan], [math.inf]):
        with pytest.raises(DicetalkError, match="Cannot estimate a mean"):
            bootstrap_mean(bad, np.random.default_rng(0), 10)


def test_generators_depend_on_seed_and_names() -> None:
    draws = {rng_for(*names).random() for names in ((1, "a", "b"), (2, "a", "b"), (1, "b", "a"), (1, "a"))}
    assert len(draws) == 4 and rng_for(1, "a", "b").random() in draws


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0, 4.0])
    estimate = jackknife_statistic(lambda weights: float(weights @ values / weights.sum()), 5)
    error = values.std(ddof=1) / math.sqrt(5)
    assert estimate.value == 4.0 and estimate.n == 5
    assert (estimate.low, estimate.high) == (
        pytest.approx(4.0 - 1.96 * error),
        pytest.approx(4.0 + 1.96 * error),
    )


def test_swap_test_of_three_pairs() -> None:
    # Sums of +-1 +-2 +-3: 6 and -6 are two of eight.
    assert swap_test(np.array([1.0, 2.0, 3.0]), ["a", "b", "c"], np.random.default_rng(0), 8) == 2 / 8
    # 1, 2 and -2: |1| is reached by all.
    assert swap_test(np.array([1.0, 2.0, -2.0]), ["a", "b", "c"], np.random.default_rng(0), 8) == 1.0
    # Swapped together: totals of 3 and 3, sums of 6, 0, 0 and -6.
    assert swap_test(np.array([1.0, 2.0, 3.0]), ["a", "a", "c"], np.random.default_rng(0), 8) == 2 / 4
    # Drawn where there are too many: the observed one counts once.
    drawn = swap_test(np.full(20, 1.0), [str(i) for i in range(20)], np.random.default_rng(0), 99)
    assert drawn == 1 / 100
    half = swap_test(np.array([1.0, 2.0, 3.0]), ["a", "b", "c"], np.random.default_rng(0), 7)
    assert 1 / 8 <= half <= 1 and half * 8 == round(half * 8)


def test_holm_multiplies_by_the_tests_that_are_left() -> None:
    assert holm([0.03, 0.01, 0.04, 0.5]) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    # Sorted 0.01, 0.03, 0.04: times 3, 2, 1 = 0.03, 0.06, 0.04, the last raised to 0.06.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_systems_are_compared_on_common_clips() -> None:
    rows = [("ours", c, "A" if c < 3 else "B", float(c), 1.0) for c in range(5)]
    rows += [("other", c, "A" if c < 3 else "B", 2.0 * c, None if c < 4 else 1.0) for c in range(1, 5)]
    table = pd.DataFrame(rows, columns=["system", "clip_id", "identity", "x", "y"])
    given = ("ours", ["other"], {"X": "x", "Y": "y", "Z": "z"})
    (tests,) = paired_tests(table, *given, False, 0, 64).values()
    assert tests.keys() == {"X"}  # one common clip with y, none with z
    # Differences of 1, 2, 3 and 4: all positive, so 2 of 16 swaps are as far.
    assert tests["X"]["difference"] == 2.5 and tests["X"]["n"] == 4
    assert tests["X"]["p"] == tests["X"]["p_holm"] == 2 / 16
    (by_person,) = paired_tests(table, *given, True, 0, 64).values()
    assert by_person["X"]["p"] == 2 / 4 and list(paired_tests(table, *given, True, 0, 64)) == ["other - ours"]
    assert by_person["X"]["ci95"] == [1.5, 3.5]  # A alone 1 and 2, B alone 3 and 4


def test_strength_is_compared_within_person_and_emotion() -> None:
    rows = []
    for person, base in (("A", 0.0), ("B", 5.0)):
        rows += [
            ("ours", f"{person}h{v}", person, "happy", v, base + s) for v, s in ((1, 1.0), (2, 1.5), (3, 3.5))
        ]
        rows += [("ours", f"{person}h1b", person, "happy", 1, base + 3.0)]  # a second take
        rows += [("ours", f"{person}n", person, "neutral", 1, base + 0.5)]
        rows += [("real", f"{person}n", person, "neutral", 1, base)]
    rows += [("ours", "As1", "A", "sad", 1, 0.0)]
    columns = ["system", "clip_id", "identity", "emotion", "level", "expression_strength"]
    table = pd.DataFrame(rows, columns=columns)
    found = strength_differences(table, True, 0, 100)
    assert found.keys() == {"ours"}
    ours = found["ours"]
    assert ours["level 2 - level 1"]["difference"] == pytest.approx(-0.5)  # the mean of both takes is 2
    assert (
        ours["level 3 - level 2"]["difference"] == pytest.approx(2.0) and ours["level 3 - level 2"]["n"] == 2
    )
    assert ours["neutral - real neutral"]["difference"] == pytest.approx(0.5)
    assert ours["neutral - real neutral"]["p"] == 2 / 4
    assert strength_differences(table.drop(columns="expression_strength"), True, 0, 100) == {}
    assert strength_differences(table[table["identity"] == "A"], False, 0, 100) == {}
