"""Result files may hold anything: each is used or named with a reason, and none stops the analysis."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_study import Study, answers_of, result_of, save

from dicetalk.errors import DicetalkError
from dicetalk.study.raters import select_raters
from dicetalk.study.results import MAX_BYTES, printable, read_result, result_files

Change = Callable[[dict[str, Any]], None]


def good(study: Study, participant: int = 1, session: int = 1) -> dict[str, Any]:
    answers = answers_of(study.key, participant, lambda c, s: 2 + len(c) % 3, lambda c, p: "abcd"[len(c) % 2])
    return result_of(study.key, participant, answers, session)


def reason_of(study: Study, path: Path) -> str:
    kept, excluded = select_raters([path], study.key)
    assert not kept and len(excluded) == 1
    return excluded[0].reason


def test_a_good_file_counts(study: Study, tmp_path: Path) -> None:
    kept, excluded = select_raters([save(tmp_path / "r.json", good(study))], study.key)
    assert not excluded
    assert (kept[0].checks_passed, kept[0].checks_seen) == (2, 2)
    assert len(kept[0].result.answers) == 11


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 200_000, "no JSON: nested too deeply"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "no JSON: nested too deeply"),
        (b"[1, NaN]", "NaN is no number"),
        (b'{"x": 1, "x": 2}', "a key occurs twice"),
        (b"1" * 10_000, "no JSON"),  # a number of more digits than Python converts
        (b"[]", "no result of a study"),
        (b"null", "no result of a study"),
        (b'{"format": "dicetalk-study-result"}', "no result of a study"),
        (b" " * (MAX_BYTES + 1), "larger than 1024 KiB"),
    ],
)
def test_what_is_no_result_is_refused(study: Study, tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "r.json").write_bytes(content)
    assert reason in reason_of(study, tmp_path / "r.json")


def test_pipes_folders_and_missing_files_are_refused_at_once(study: Study, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    for name in ("pipe.json", "folder.json", "missing.json"):
        assert reason_of(study, tmp_path / name) == "not a file"


def _set(*path_and_value: Any) -> Change:
    *path, last, value = path_and_value

    def change(result: dict[str, Any]) -> None:
        target: Any = result
        for step in path:
            target = target[step]
        target[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("extra", 1), "extra"),
        (_set("version", 2), "version"),
        (_set("study", "0" * 12), "belongs to the study 000000000000"),
        (_set("study", "x\x1b[31m"), "study"),
        (_set("participant", 7), "there are only 6"),
        (_set("participant", 0), "participant"),
        (_set("participant", True), "participant"),
        (_set("participant", 1.0), "participant"),
        (_set("participant", 2), "was not asked"),  # the answers are those of participant 1
        (_set("session", "1"), "session"),
        (_set("session", "0" * 16 + "\n"), "session"),
        (_set("answers", 0, "seconds", -1.0), "seconds"),
        (_set("answers", 0, "seconds", 1e300), "seconds"),
        (_set("answers", 0, "seconds", "9"), "seconds"),
        (_set("answers", 0, "trial", "../../etc/passwd"), "trial"),
        (_set("answers", 0, "trial", "0123456789"), "was not asked"),
        (_set("answers", 0, "values", "emotion", 6), "values.emotion"),
        (_set("answers", 0, "values", "emotion", 0), "values.emotion"),
        (_set("answers", 0, "values", "emotion", True), "values.emotion"),
        (_set("answers", 0, "values", "emotion", 3.5), "values.emotion"),
        (_set("answers", 0, "values", "emotion", "a"), "not those that were offered"),  # step 1 is a rating
        (_set("answers", 0, "values", "beauty", 3), "not those that were offered"),
        (_set("answers", 0, "values", {}), "not those that were offered"),
        (_set("answers", [{}] * 10_001), "answers"),
        (lambda r: r["answers"].append(copy.deepcopy(r["answers"][3])), "twice"),
        (
            lambda r: r["problems"].append({"trial": r["answers"][3]["trial"], "reason": "cannot_play"}),
            "twice",
        ),
    ],
)
def test_results_that_do_not_fit_are_refused(
    study: Study, tmp_path: Path, change: Change, reason: str
) -> None:
    result = good(study)
    change(result)
    assert reason in reason_of(study, save(tmp_path / "r.json", result))


def test_reasons_never_carry_control_characters(study: Study, tmp_path: Path) -> None:
    result = good(study)
    result["\x1b]0;evil\x07" + "x" * 500] = 1
    reason = reason_of(study, save(tmp_path / "r.json", result))
    assert reason.isprintable() and len(reason) < 250
    assert printable("a\x1b[31m\nb") == "a?[31m?b"
    path = save(tmp_path / "\x1b[31mred.json", {})
    assert "\x1b" not in select_raters([path], study.key)[1][0].name


def _fail_checks(count: int) -> Callable[[Study, dict[str, Any]], None]:
    def change(study: Study, result: dict[str, Any]) -> None:
        checks = [a for a in result["answers"] if study.key.trials[a["trial"]].kind == "check"]
        for answer in checks[:count]:
            wrong = 3 if isinstance(answer["values"]["emotion"], int) else "same"
            answer["values"]["quality"] = wrong  # one wrong answer of four is enough

    return change


def _drop(keep: int) -> Callable[[Study, dict[str, Any]], None]:
    return lambda study, result: result["answers"].__delitem__(slice(keep, None))


def _hurry(study: Study, result: dict[str, Any]) -> None:
    for answer in result["answers"][:2]:
        answer["seconds"] = 0.3


def _drop_checks(study: Study, result: dict[str, Any]) -> None:
    result["answers"] = [a for a in result["answers"] if study.key.trials[a["trial"]].kind != "check"]


def _same_rating(study: Study, result: dict[str, Any]) -> None:
    for answer in result["answers"]:
        if study.key.trials[answer["trial"]].kind == "rating":
            answer["values"] = dict.fromkeys(answer["values"], 4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_fail_checks(1), "failed 1 of 2 attention checks"),
        (_fail_checks(2), "failed 2 of 2 attention checks"),
        (_drop(5), "incomplete: 5 of 11 steps answered"),
        (_drop(0), "incomplete: 0 of 11 steps answered"),
        (_drop_checks, "no attention check answered"),
        (_hurry, "2 of 11 steps took less time than their videos play"),
        (_same_rating, "gave the answer 4 to all 24 questions of a kind"),
    ],
)
def test_raters_are_excluded_by_rule(study: Study, tmp_path: Path, change: Any, reason: str) -> None:
    result = good(study)
    change(study, result)
    assert reason_of(study, save(tmp_path / "r.json", result)) == reason


def test_no_difference_everywhere_is_an_opinion(study: Study, tmp_path: Path) -> None:
    answers = answers_of(study.key, 1, lambda c, s: 1 + len(c) % 5, lambda c, p: "same")
    kept, _ = select_raters([save(tmp_path / "r.json", result_of(study.key, 1, answers, 1))], study.key)
    assert len(kept) == 1


def test_of_one_visit_the_fullest_file_counts(study: Study, tmp_path: Path) -> None:
    result = good(study)
    early = copy.deepcopy(result)
    del early["answers"][8:]
    stolen = copy.deepcopy(result) | {"session": f"{99:016x}"}  # the same answers under another name
    other = good(study, participant=2, session=2)
    files = [
        save(tmp_path / f"{name}.json", content)
        for name, content in {"a": early, "b": result, "c": result, "d": stolen, "e": other}.items()
    ]
    kept, excluded = select_raters(files, study.key)
    assert [Path(rater.name).stem for rater in kept] == ["b", "e"]
    assert [Path(item.name).stem for item in excluded] == ["a", "c", "d"]
    assert all("same visit as" in item.reason and "b.json" in item.reason for item in excluded[1:])


ODD: list[Any] = [None, True, -1, 0, 3, 2**70, 1e308, "", "a", "\x00", "é" * 99, [], {}, [[]], {"a": {}}]


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    """Return the path of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in [(*path, key), *_places(item, (*path, key))]]


def test_no_damage_stops_the_analysis(study: Study, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    content = json.dumps(good(study)).encode()
    files = [tmp_path / f"{number}.json" for number in range(400)]
    for number, file in enumerate(files):
        if number % 4 == 0:  # bytes that are overwritten or lost
            damaged = bytearray(content)
            start = rng.integers(len(damaged))
            damaged[start : start + rng.integers(1, 30)] = rng.bytes(rng.integers(0, 10))
            file.write_bytes(damaged)
        else:  # valid JSON with an odd value somewhere
            result = good(study, session=number)
            places = _places(result)
            _set(*places[rng.integers(len(places))], ODD[rng.integers(len(ODD))])(result)
            save(file, result)
    kept, excluded = select_raters(files, study.key)
    assert len(kept) + len(excluded) == len(files)
    assert all(item.reason and item.reason.isprintable() and len(item.reason) < 300 for item in excluded)
    assert len({item.reason.split(":")[0] for item in excluded}) > 8
    for rater in kept:  # a few odd values are answers one can give
        assert all(set(answer.values) == set(study.key.criteria) for answer in rater.result.answers)


def test_folders_stand_for_their_json_files(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", "notes.txt"):
        (tmp_path / name).write_text("{}")
    files = result_files([tmp_path, tmp_path / "a.json"])
    assert [path.name for path in files] == ["a.json", "b.json"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DicetalkError, match="No .json files"):
        result_files([tmp_path / "empty"])


def test_a_byte_order_mark_is_no_reason_to_lose_a_rater(study: Study, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(good(study)).encode())
    assert read_result(tmp_path / "r.json").participant == 1
