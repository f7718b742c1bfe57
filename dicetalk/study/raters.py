"""Which raters count. The rules are fixed before any result is seen, and each exclusion has its reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dicetalk.errors import DicetalkError
from dicetalk.study.key import Key, KeyTrial
from dicetalk.study.questions import PREFERENCES, SCALE
from dicetalk.study.results import Answer, Result, printable, read_result

MIN_ANSWERED_SHARE = 0.5
MAX_FAILED_CHECKS_SHARE = 0.5
MAX_HURRIED_SHARE = 0.1
MIN_UNIFORM_ANSWERS = 20


@dataclass(frozen=True)
class Rater:
    """A rater who counts.

    Attributes:
        name: name of the file.
        result: what it holds; every answer fits the key.
        checks_passed, checks_seen: attention checks.
    """

    name: str
    result: Result
    checks_passed: int
    checks_seen: int


@dataclass(frozen=True)
class Excluded:
    """A file that does not count, and why."""

    name: str
    reason: str


def select_raters(files: list[Path], key: Key) -> tuple[list[Rater], list[Excluded]]:
    """Read all files and apply the rules; every file ends in one of the two lists."""
    fitting: dict[str, Result] = {}
    kept: list[Rater] = []
    excluded: list[Excluded] = []
    for file in files:
        name = printable(str(file), 300)
        try:
            result = read_result(file)
            _check_fit(result, key)
            fitting[name] = result
        except DicetalkError as error:
            excluded.append(Excluded(name, str(error)))
    for name, result in fitting.items():
        try:
            _check_unique(name, fitting)
            kept.append(_judge(name, result, key))
        except DicetalkError as error:
            excluded.append(Excluded(name, str(error)))
    return kept, excluded


def _check_fit(result: Result, key: Key) -> None:
    """Raise unless every answer belongs to this study and to the list of this participant."""
    if result.study != key.study:
        raise DicetalkError(f"belongs to the study {result.study}, not to {key.study}")
    if result.participant > len(key.slots):
        raise DicetalkError(f"participant number {result.participant}, but there are only {len(key.slots)}")
    asked = set(key.slots[result.participant - 1])
    steps = Counter([answer.trial for answer in result.answers] + [item.trial for item in result.problems])
    if strange := sorted(set(steps) - asked):
        raise DicetalkError(f"answers {strange[0]}, which participant {result.participant} was not asked")
    if twice := [trial for trial, count in steps.items() if count > 1]:
        raise DicetalkError(f"answers {twice[0]} twice")
    for answer in result.answers:
        allowed = SCALE if _part(key.trials[answer.trial]) == "rating" else PREFERENCES
        if set(answer.values) != set(key.criteria) or not set(answer.values.values()) <= set(allowed):
            raise DicetalkError(f"the answers to {answer.trial} are not those that were offered")


def _judge(name: str, result: Result, key: Key) -> Rater:
    """Raise unless the rater worked through enough of it, attentively."""
    asked, answers = key.slots[result.participant - 1], result.answers
    if len(answers) < MIN_ANSWERED_SHARE * len(asked) or not answers:
        raise DicetalkError(f"incomplete: {len(answers)} of {len(asked)} steps answered")
    checks = [answer for answer in answers if key.trials[answer.trial].kind == "check"]
    passed = sum(_passes(answer, key.trials[answer.trial]) for answer in checks)
    if any(key.trials[trial].kind == "check" for trial in asked):
        if not checks:
            raise DicetalkError("no attention check answered")
        if len(checks) - passed >= MAX_FAILED_CHECKS_SHARE * len(checks):
            raise DicetalkError(f"failed {len(checks) - passed} of {len(checks)} attention checks")
    hurried = sum(answer.seconds < key.seconds(key.trials[answer.trial]) for answer in answers)
    if hurried > MAX_HURRIED_SHARE * len(answers):
        raise DicetalkError(f"{hurried} of {len(answers)} steps took less time than their videos play")
    for part in ("rating", "pair"):
        values = [
            value
            for answer in answers
            if key.trials[answer.trial].kind == part
            for value in answer.values.values()
        ]
        # "No difference" everywhere is a possible opinion, always the left one is not.
        if len(values) >= MIN_UNIFORM_ANSWERS and len(set(values)) == 1 and values[0] != "same":
            raise DicetalkError(f"gave the answer {values[0]} to all {len(values)} questions of a kind")
    return Rater(name, result, passed, len(checks))


def _check_unique(name: str, results: dict[str, Result]) -> None:
    """Raise when another file is of the same visit and has more answers, or as many and comes first.

    Raters may save more than once. Equal answers in equal times are the same visit, whatever the file says.
    """
    own, before = results[name], True
    for other_name, other in results.items():
        if other_name == name:
            before = False
        elif other.session == own.session or other.answers == own.answers:
            surplus = len(other.answers) - len(own.answers)
            if surplus > 0 or (surplus == 0 and before):
                raise DicetalkError(f"same visit as {other_name}, which holds {len(other.answers)} answers")


def _part(trial: KeyTrial) -> str:
    return trial.part if trial.kind == "check" else trial.kind


def _passes(answer: Answer, trial: KeyTrial) -> bool:
    return trial.kind == "check" and all(value == trial.expected for value in answer.values.values())
