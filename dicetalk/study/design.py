"""Who sees what in which order: a balanced incomplete design with random order.

All stimuli stand on a circle so that neighbours belong to different systems (or pairs of systems). Each rater
takes the next arc of it. Hence, whatever the numbers:

- one rater's share of any two systems differs by at most one, and no rater meets a stimulus twice;
- over all raters, how often any two stimuli are shown differs by at most one;
- over all raters, each system stands as often left as right in each of its pairs, up to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

import numpy as np

from dicetalk.errors import DicetalkError

SHUFFLES = 50


@dataclass(frozen=True)
class Rating:
    """One video, rated."""

    clip: str
    system: str


@dataclass(frozen=True)
class Pair:
    """Two videos of the same clip, compared; `left` is called A and `right` B."""

    clip: str
    left: str
    right: str


@dataclass(frozen=True)
class Check:
    """A video that says in its picture which answer to give to every question.

    Attributes:
        part: what it is disguised as.
        expected: the answer it asks for: a number of the scale, or `a` or `b`.
        clip, system: the video that carries the message.
    """

    part: Literal["rating", "pair"]
    expected: int | str
    clip: str
    system: str


Trial = Rating | Pair | Check


@dataclass(frozen=True)
class Size:
    """How much each rater does, and how many raters there are lists for."""

    raters: int
    ratings: int
    pairs: int
    checks: int


def assign(
    systems: Sequence[str], clips: Sequence[str], size: Size, rng: np.random.Generator
) -> list[list[Trial]]:
    """Return one list of trials per rater: a block of ratings and one of comparisons, in alternating order.

    Raises:
        DicetalkError: when a rater would meet something twice, or has too little to hide the checks in.
    """
    systems = [systems[index] for index in rng.permutation(len(systems))]
    clips = [clips[index] for index in rng.permutation(len(clips))]
    matches = [
        (first, second) if rng.random() < 0.5 else (second, first)
        for first, second in combinations(systems, 2)
    ]
    _check_size(size, len(systems) * len(clips), len(matches) * len(clips))
    ratings, pairs = _ratings(systems, clips, size), _pairs(matches, clips, size)
    checks = _checks(systems, clips, size, rng)
    slots: list[list[Trial]] = []
    for rater in range(size.raters):
        blocks = [
            _hide(_mixed(block, rng), [check for check in checks if check.part == part], rng)
            for part, block in (("rating", ratings[rater]), ("pair", pairs[rater]))
        ]
        slots.append([trial for block in (blocks if rater % 2 == 0 else blocks[::-1]) for trial in block])
    return slots


def _ratings(systems: Sequence[str], clips: Sequence[str], size: Size) -> list[list[Trial]]:
    circle = [Rating(clips[clip], systems[kind]) for kind, clip in _circle(len(systems), len(clips))]
    return [
        [circle[(rater * size.ratings + step) % len(circle)] for step in range(size.ratings)]
        for rater in range(size.raters)
    ]


def _pairs(matches: Sequence[tuple[str, str]], clips: Sequence[str], size: Size) -> list[list[Trial]]:
    circle = _circle(len(matches), len(clips))
    slots: list[list[Trial]] = []
    for rater in range(size.raters):
        slot: list[Trial] = []
        for position in range(rater * size.pairs, (rater + 1) * size.pairs):
            lap, place = divmod(position, len(circle))
            kind, clip = circle[place]
            # Sides alternate along the circle for each match, and start the other way on the next lap, so
            # that a clip does not always show the same system on the same side.
            swapped = (place // len(matches) + lap + kind) % 2 == 1
            left, right = matches[kind][::-1] if swapped else matches[kind]
            slot.append(Pair(clips[clip], left, right))
        slots.append(slot)
    return slots


def _circle(num_kinds: int, num_clips: int) -> list[tuple[int, int]]:
    """Return every (kind, clip) once; kinds rotate, clips too where there are enough."""
    shift = max(1, num_clips // max(num_kinds, 1))
    return [(kind, (lap + kind * shift) % num_clips) for lap in range(num_clips) for kind in range(num_kinds)]


def _checks(
    systems: Sequence[str], clips: Sequence[str], size: Size, rng: np.random.Generator
) -> list[Check]:
    """Return the checks, the same for every rater; 3, the answer of habit, is never asked for."""
    parts: list[Literal["rating", "pair"]] = []
    if size.ratings:
        parts.append("rating")
    if size.pairs:
        parts.append("pair")
    answers: dict[str, list[int | str]] = {"rating": [2, 4, 1, 5], "pair": ["b", "a"]}
    checks = []
    for number in range(size.checks):
        part = parts[number % len(parts)]
        options = answers[part]
        expected = options[number // len(parts) % len(options)]
        clip, system = clips[int(rng.integers(len(clips)))], systems[int(rng.integers(len(systems)))]
        checks.append(Check(part, expected, clip, system))
    return checks


def _mixed(block: Sequence[Trial], rng: np.random.Generator) -> list[Trial]:
    """Shuffle; of several shuffles keep the one with the fewest neighbours that show the same clip."""
    orders = [[block[index] for index in rng.permutation(len(block))] for _ in range(SHUFFLES)]
    return min(orders, key=lambda order: sum(one.clip == other.clip for one, other in pairwise(order)))


def _hide(block: list[Trial], checks: list[Check], rng: np.random.Generator) -> list[Trial]:
    """Insert checks at random places, never first and never two in a row."""
    places = sorted(rng.choice(np.arange(1, len(block) + 1), len(checks), replace=False)) if checks else []
    order = rng.permutation(len(checks))
    hidden = list(block)
    for shift, (place, index) in enumerate(zip(places, order, strict=True)):
        hidden.insert(int(place) + shift, checks[index])
    return hidden


def _check_size(size: Size, num_stimuli: int, num_matches: int) -> None:
    if size.raters < 1 or min(size.ratings, size.pairs, size.checks) < 0 or not size.ratings + size.pairs:
        raise DicetalkError(f"A study needs raters and something to ask them, found {size}.")
    for what, wanted, available in (
        ("ratings", size.ratings, num_stimuli),
        ("pairs", size.pairs, num_matches),
    ):
        if wanted > available:
            raise DicetalkError(
                f"--{what} {wanted}: a rater would see something twice, as there are only {available}"
                f" different ones; lower --{what} or raise --clips."
            )
    blocks = [count for count in (size.ratings, size.pairs) if count]
    if size.checks > len(blocks) * min(blocks):
        raise DicetalkError(f"--checks {size.checks}: no room for them between {min(blocks)} trials.")
