"""Assignment: balanced within raters and over raters, for any size; random order; checks well hidden."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest

from dicetalk.errors import DicetalkError
from dicetalk.study.design import Check, Pair, Rating, Size, assign

SIZES = [
    # systems, clips, raters, ratings, pairs
    (2, 1, 1, 2, 1),
    (2, 5, 7, 4, 3),
    (3, 4, 6, 6, 3),
    (3, 7, 20, 13, 11),
    (4, 16, 20, 24, 12),
    (5, 6, 9, 30, 60),
]


def design(systems: int, clips: int, raters: int, ratings: int, pairs: int, checks: int = 0, seed: int = 0):
    names = [f"s{i}" for i in range(systems)], [f"c{i}" for i in range(clips)]
    return names, assign(*names, Size(raters, ratings, pairs, checks), np.random.default_rng(seed))


def spread(counts: Counter, universe: list) -> int:
    values = [counts[item] for item in universe]
    return max(values) - min(values)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_ratings_are_balanced(size: tuple[int, ...], seed: int) -> None:
    (systems, clips), slots = design(*size, seed=seed)
    over_all: Counter = Counter()
    for slot in slots:
        ratings = [trial for trial in slot if isinstance(trial, Rating)]
        assert len(ratings) == size[3] == len(set(ratings))
        assert spread(Counter(trial.system for trial in ratings), systems) <= 1
        over_all.update(ratings)
    assert spread(over_all, [Rating(clip, system) for clip in clips for system in systems]) <= 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_comparisons_and_sides_are_balanced(size: tuple[int, ...], seed: int) -> None:
    (systems, clips), slots = design(*size, seed=seed)
    matches = [frozenset(match) for match in combinations(systems, 2)]
    over_all: Counter = Counter()
    left: Counter = Counter()
    for slot in slots:
        pairs = [trial for trial in slot if isinstance(trial, Pair)]
        items = [(frozenset((trial.left, trial.right)), trial.clip) for trial in pairs]
        assert len(items) == size[4] == len(set(items))
        assert all(trial.left != trial.right for trial in pairs)
        assert spread(Counter(match for match, _ in items), matches) <= 1
        over_all.update(items)
        left.update((frozenset((trial.left, trial.right)), trial.left) for trial in pairs)
    assert spread(over_all, [(match, clip) for match in matches for clip in clips]) <= 1
    for match in matches:
        assert spread(left, [(match, system) for system in match]) <= 1


@pytest.mark.parametrize("clips", [4, 5])
def test_a_clip_changes_sides_from_lap_to_lap(clips: int) -> None:
    # Two systems: one comparison per clip, so that `clips` comparisons are one lap.
    _, slots = design(2, clips, 2, 0, clips)
    first, second = ({trial.clip: trial.left for trial in slot} for slot in slots)
    assert all(first[clip] != second[clip] for clip in first)


def test_half_of_the_raters_begin_with_comparisons() -> None:
    _, slots = design(3, 4, 6, 6, 3)
    assert [isinstance(slot[0], Pair) for slot in slots] == [False, True] * 3
    for slot in slots:  # blocks, not a mixture
        kinds = [type(trial) for trial in slot]
        assert sum(one != other for one, other in pairwise(kinds)) == 1


def test_orders_differ_and_rarely_repeat_a_clip() -> None:
    _, slots = design(3, 8, 10, 8, 0)
    assert len({tuple(slot) for slot in slots}) == 10
    assert sum(one.clip == other.clip for slot in slots for one, other in pairwise(slot)) <= 1


def test_checks_are_inside_the_blocks_and_ask_for_different_answers() -> None:
    _, slots = design(3, 8, 10, 10, 6, checks=6)
    for slot in slots:
        checks = [trial for trial in slot if isinstance(trial, Check)]
        assert sorted(str(check.expected) for check in checks) == ["1", "2", "4", "a", "b", "b"]
        for index, trial in enumerate(slot):
            if isinstance(trial, Check):
                before = slot[index - 1]
                assert index > 0 and isinstance(before, Rating if trial.part == "rating" else Pair)


def test_the_seed_decides_everything() -> None:
    assert design(3, 4, 6, 6, 3, 2, seed=1) == design(3, 4, 6, 6, 3, 2, seed=1)
    assert design(3, 4, 6, 6, 3, 2, seed=1) != design(3, 4, 6, 6, 3, 2, seed=2)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (Size(1, 13, 0, 0), "--ratings 13"),
        (Size(1, 0, 13, 0), "--pairs 13"),
        (Size(1, 0, 0, 0), "something to ask"),
        (Size(0, 1, 0, 0), "needs raters"),
        (Size(1, 6, 1, 3), "--checks 3"),
    ],
)
def test_impossible_sizes_are_refused(size: Size, message: str) -> None:
    with pytest.raises(DicetalkError, match=message):
        assign(["x", "y", "z"], list("abcd"), size, np.random.default_rng(0))
