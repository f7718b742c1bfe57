"""From result files to numbers: ratings and preferences, with intervals, tests and agreement."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.statistics import holm
from dicetalk.study.agreement import krippendorff_alpha
from dicetalk.study.key import Key, PairTrial, RatingTrial
from dicetalk.study.questions import SCALE
from dicetalk.study.raters import Rater, select_raters
from dicetalk.study.statistics import mean_with_interval, sign_flip_p

# How far an answer speaks for the video on the left.
SCORES = {"a": 1.0, "same": 0.0, "b": -1.0}


def analyse_study(files: list[Path], key: Key) -> dict[str, Any]:
    """Return the analysis of a study in a form for JSON.

    Args:
        files: result files of raters.
        key: the key of the study.

    Returns:
        `raters` (kept and excluded, with reasons), `ratings` and `preferences`; each of the latter has
        `agreement` (alpha by criterion) and `tests`. A part that nobody answered is `None`.

    Raises:
        DicetalkError: when no rater is left.
    """
    raters, excluded = select_raters(files, key)
    if not raters:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in excluded[:5])
        raise DicetalkError(f"None of {len(files)} files counts. {reasons}")
    ratings, preferences = rating_table(raters, key), preference_table(raters, key)
    return {
        "study": key.study,
        "title": key.title,
        "systems": key.systems,
        "criteria": key.criteria,
        "raters": {
            "kept": [
                {
                    "file": rater.name,
                    "participant": rater.result.participant,
                    "answers": len(rater.result.answers),
                    "not_playable": len(rater.result.problems),
                    "checks_passed": rater.checks_passed,
                    "checks_seen": rater.checks_seen,
                }
                for rater in raters
            ],
            "excluded": [{"file": item.name, "reason": item.reason} for item in excluded],
        },
        "ratings": None if ratings.empty else _ratings(ratings, key),
        "preferences": None if preferences.empty else _preferences(preferences, key),
    }


def rating_table(raters: list[Rater], key: Key) -> pd.DataFrame:
    """Return one row per rating: `rater`, `stimulus`, `system`, `criterion`, `value`."""
    rows = [
        (number, trial.stimulus, key.stimuli[trial.stimulus].system, criterion, value)
        for number, rater in enumerate(raters)
        for answer in rater.result.answers
        if isinstance(trial := key.trials[answer.trial], RatingTrial)
        for criterion, value in answer.values.items()
    ]
    return pd.DataFrame(rows, columns=["rater", "stimulus", "system", "criterion", "value"])


def preference_table(raters: list[Rater], key: Key) -> pd.DataFrame:
    """Return one row per comparison.

    Columns: `rater`, `unit` (clip and systems), `first` and `second` (systems in the order of the key),
    `criterion`, `score` (1 for the first, 0 for no difference, -1 for the second) and `left_score` (the same
    for the left side).
    """
    rows = []
    for number, rater in enumerate(raters):
        for answer in rater.result.answers:
            trial = key.trials[answer.trial]
            if not isinstance(trial, PairTrial):
                continue
            left, right = key.stimuli[trial.left], key.stimuli[trial.right]
            turned = key.systems.index(left.system) > key.systems.index(right.system)
            first, second = (right, left) if turned else (left, right)
            unit = f"{first.system} / {second.system} / {first.clip}"
            for criterion, value in answer.values.items():
                score = SCORES[str(value)]
                rows.append(
                    (number, unit, first.system, second.system, criterion, -score if turned else score, score)
                )
    columns = ["rater", "unit", "first", "second", "criterion", "score", "left_score"]
    return pd.DataFrame(rows, columns=columns)


def _ratings(table: pd.DataFrame, key: Key) -> dict[str, Any]:
    means = table.pivot_table(index="rater", columns=["criterion", "system"], values="value", aggfunc="mean")
    systems: dict[str, dict[str, Any]] = {system: {} for system in key.systems}
    for criterion, system in means.columns:
        answers = table[(table["criterion"] == criterion) & (table["system"] == system)]
        values = list(means[criterion, system].dropna())
        entry = mean_with_interval(values, SCALE[0], SCALE[-1])
        systems[system][criterion] = {**entry, "n_answers": len(answers)}
    tests = []
    for criterion in key.criteria:
        for first, second in combinations(key.systems, 2):
            if {(criterion, first), (criterion, second)} <= set(means.columns):
                differences = (means[criterion, first] - means[criterion, second]).dropna()
                if len(differences):
                    span = SCALE[-1] - SCALE[0]
                    entry = mean_with_interval(list(differences), -span, span)
                    names = {"criterion": criterion, "first": first, "second": second}
                    tests.append({**names, **entry, "p": sign_flip_p(list(differences))})
    return {
        "systems": systems,
        "tests": _corrected(tests),
        "agreement": _agreement(table, key, "stimulus", "value", SCALE, "ordinal"),
    }


def _preferences(table: pd.DataFrame, key: Key) -> dict[str, Any]:
    tests = []
    for criterion in key.criteria:
        for first, second in combinations(key.systems, 2):
            chosen = table[
                (table["criterion"] == criterion) & (table["first"] == first) & (table["second"] == second)
            ]
            if chosen.empty:
                continue
            scores = chosen.groupby("rater")["score"].mean()
            entry = mean_with_interval(list((scores + 1) / 2), 0.0, 1.0)
            names = {"criterion": criterion, "first": first, "second": second}
            outcomes = {"first_preferred": 1.0, "no_difference": 0.0, "second_preferred": -1.0}
            counts = {name: int((chosen["score"] == score).sum()) for name, score in outcomes.items()}
            tests.append({**names, **entry, **counts, "p": sign_flip_p(list(scores))})
    sides = table[table["left_score"] != 0]["left_score"]
    return {
        "tests": _corrected(tests),
        "agreement": _agreement(table, key, "unit", "score", tuple(SCORES.values()), "nominal"),
        "left_share": float((sides > 0).mean()) if len(sides) else None,
    }


def _corrected(tests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the p-values corrected for all tests of the list."""
    corrected = holm([test["p"] for test in tests])
    return [{**test, "p_holm": value} for test, value in zip(tests, corrected, strict=True)]


def _agreement(
    table: pd.DataFrame,
    key: Key,
    unit: str,
    column: str,
    values: Sequence[float],
    level: Literal["nominal", "ordinal"],
) -> dict[str, float | None]:
    found = {}
    for criterion in key.criteria:
        groups = table[table["criterion"] == criterion].groupby(unit)[column]
        found[criterion] = krippendorff_alpha([list(answers) for _, answers in groups], values, level)
    return found
