"""The whole analysis against numbers worked out by hand, and against planted opinions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_study import Study, answers_of, result_of, save
from typer.testing import CliRunner

from dicetalk.cli.app import app
from dicetalk.errors import DicetalkError
from dicetalk.study.analyse import analyse_study
from dicetalk.study.key import CheckTrial, Key, PairTrial, RatingTrial, Stimulus

RATINGS = {  # rater -> rating of x1, x2, y1, y2 in emotion
    1: (5, 4, 2, 3),
    2: (4, 4, 3, 1),
    3: (5, 5, 1, 2),
    4: (3, 5, 3, 2),
}
PREFERENCES = {1: ("a", "b"), 2: ("a", "same"), 3: ("a", "b"), 4: ("b", "b")}


@pytest.fixture
def tiny() -> Key:
    """Two systems, two clips; pairs show x left for clip 1 and right for clip 2; one check."""
    stimuli = {
        f"{s}{c}": Stimulus(system=s, clip=c, seconds=1.0, source_sha256="") for s in "xy" for c in "12"
    }
    trials: dict[str, Any] = {
        f"00000000{s}{c}".replace("x", "a").replace("y", "b"): RatingTrial(kind="rating", stimulus=f"{s}{c}")
        for s in "xy"
        for c in "12"
    }
    trials["00000000c1"] = PairTrial(kind="pair", left="x1", right="y1")
    trials["00000000c2"] = PairTrial(kind="pair", left="y2", right="x2")
    trials["00000000d1"] = CheckTrial(kind="check", part="rating", stimulus="x1", expected=2)
    return Key(
        format="dicetalk-study-key",
        version=1,
        study="0123456789ab",
        title="tiny",
        seed=0,
        systems=["x", "y"],
        criteria=["emotion"],
        stimuli=stimuli,
        trials=trials,
        slots=[list(trials)] * 4,
        left_out={},
    )


def hand_made(tiny: Key, folder: Path) -> list[Path]:
    files = []
    for rater, ratings in RATINGS.items():
        values = [*ratings, *PREFERENCES[rater], 2]
        answers = [
            {"trial": trial, "values": {"emotion": value}, "seconds": 3.0 + rater, "plays": [1]}
            for trial, value in zip(tiny.trials, values, strict=True)
        ]
        files.append(save(folder / f"{rater}.json", result_of(tiny, rater, answers, rater)))
    return files


def test_the_analysis_worked_out_by_hand(tiny: Key, tmp_path: Path) -> None:
    analysis = analyse_study(hand_made(tiny, tmp_path), tiny)
    ratings, preferences = analysis["ratings"], analysis["preferences"]
    # Averages of the raters: x 4.5, 4, 5, 4 (mean 4.375), y 2.5, 2, 1.5, 2.5 (mean 2.125).
    x, y = ratings["systems"]["x"]["emotion"], ratings["systems"]["y"]["emotion"]
    assert (x["value"], x["n_raters"], x["n_answers"]) == (4.375, 4, 8)
    assert (y["value"], y["n_raters"], y["n_answers"]) == (2.125, 4, 8)
    # x: deviations .125, -.375, .625, -.375, squares sum to .6875, sd sqrt(.6875 / 3), t(3) = 3.182446.
    half = 3.182446 * np.sqrt(0.6875 / 3 / 4)
    assert x["ci95"] == pytest.approx([4.375 - half, min(5, 4.375 + half)], abs=1e-6)
    # Differences 2, 2, 3.5, 1.5: mean 2.25, all positive: p = 2 / 16, the only test.
    (test,) = ratings["tests"]
    assert (test["first"], test["second"], test["value"]) == ("x", "y", 2.25)
    assert test["p"] == test["p_holm"] == pytest.approx(0.125)
    # x against y. Clip 1 has x on the left: x, x, x, y. Clip 2 has it on the right: x, same, x, x.
    # Scores of the raters 1, 0.5, 1, 0: shares 1, 0.75, 1, 0.5, mean 0.8125.
    (test,) = preferences["tests"]
    assert test["value"] == pytest.approx(0.8125)
    assert (test["first_preferred"], test["no_difference"], test["second_preferred"]) == (6, 1, 1)
    # Signs of 1, 0.5, 1 count, those of 0 do not: both ends, 2 of 8.
    assert test["p"] == pytest.approx(0.25)
    # Left was preferred in clip 1 by three of four, in clip 2 by none of three.
    assert preferences["left_share"] == pytest.approx(3 / 7)
    # Alpha, nominal: units (x x x y) and (x s x x). Coincidences of the first: xx 3 * 2 / 3 = 2, xy 1, yx 1;
    # of the second: xx 2, xs 1, sx 1. Totals x 6, y 1, s 1, n 8. Observed 4,
    # expected 2 * (6 + 6 + 1) / 7 = 26 / 7.
    assert preferences["agreement"]["emotion"] == pytest.approx(1 - 4 / (26 / 7))


def test_the_order_of_files_and_their_names_change_nothing(tiny: Key, tmp_path: Path) -> None:
    files = hand_made(tiny, tmp_path)
    one, other = analyse_study(files, tiny), analyse_study(files[::-1], tiny)
    for part in ("ratings", "preferences"):
        assert json.dumps(one[part]) == json.dumps(other[part])


def planted(study: Study, folder: Path, quality: dict[str, float], raters: int) -> list[Path]:
    files = []
    for number in range(raters):
        rng = np.random.default_rng(number)
        participant = number % len(study.key.slots) + 1

        def rate(criterion: str, stimulus: Stimulus, rng: np.random.Generator = rng) -> int:
            shift = quality[stimulus.system] if criterion == "emotion" else 0.0
            return int(np.clip(round(3 + shift + rng.normal(0, 0.8)), 1, 5))

        def prefer(criterion: str, pair: tuple[Stimulus, Stimulus], rng: np.random.Generator = rng) -> str:
            shifts = [quality[stimulus.system] if criterion == "emotion" else 0.0 for stimulus in pair]
            score = shifts[0] - shifts[1] + rng.normal(0, 0.8)
            return "a" if score > 0.3 else "b" if score < -0.3 else "same"

        answers = answers_of(study.key, participant, rate, prefer)
        for index, answer in enumerate(answers):  # no two visits take the same time
            answer["seconds"] = 20.0 + number + index / 10
        files.append(save(folder / f"{number}.json", result_of(study.key, participant, answers, number)))
    return files


def test_a_planted_difference_is_found_in_its_criterion_only(study: Study, tmp_path: Path) -> None:
    quality = {"alphasys": 1.2, "betasys": 0.0, "gammasys": -1.2}
    analysis = analyse_study(planted(study, tmp_path, quality, 24), study.key)
    assert len(analysis["raters"]["kept"]) == 24
    for part, null in (("ratings", 0.0), ("preferences", 0.5)):
        for test in analysis[part]["tests"]:
            if test["criterion"] == "emotion":
                assert test["value"] > null and test["p_holm"] < 0.05, test
            else:
                assert test["p_holm"] > 0.05, test
    means = [analysis["ratings"]["systems"][system]["emotion"]["value"] for system in quality]
    assert means == sorted(means, reverse=True) and means[0] - means[2] > 1.5
    agreement = analysis["ratings"]["agreement"]
    assert agreement["emotion"] > 0.3 > agreement["quality"]
    assert abs(analysis["preferences"]["left_share"] - 0.5) < 0.1


def test_nobody_left_is_an_error_with_reasons(study: Study, tmp_path: Path) -> None:
    with pytest.raises(DicetalkError, match="None of 1 files counts.*no JSON"):
        analyse_study([_garbage(tmp_path)], study.key)


def _garbage(folder: Path) -> Path:
    path = folder / "x.json"
    path.write_text("{")
    return path


def test_one_rater_gives_means_without_intervals(tiny: Key, tmp_path: Path) -> None:
    analysis = analyse_study(hand_made(tiny, tmp_path)[:1], tiny)
    assert analysis["ratings"]["systems"]["x"]["emotion"]["ci95"] is None
    assert analysis["ratings"]["tests"][0]["p"] == 1.0
    assert analysis["ratings"]["agreement"]["emotion"] is None


def test_the_command_prints_and_writes(study: Study, tmp_path: Path) -> None:
    quality = {"alphasys": 1.0, "betasys": 0.0, "gammasys": -1.0}
    planted(study, tmp_path / "inbox", quality, 6)
    _garbage(tmp_path / "inbox").rename(tmp_path / "inbox" / "[red]evil.json")
    arguments = ["study", "analyse", str(tmp_path / "inbox"), "--key", str(study.key_path)]
    result = CliRunner().invoke(
        app, [*arguments, "--out", str(tmp_path / "a.json")], env={"COLUMNS": "200", "NO_COLOR": "1"}
    )
    assert result.exit_code == 0, result.output
    assert "6 raters, 1 excluded" in result.output and "[red]evil.json: no JSON" in result.output
    for text in ("alphasys", "Lip sync", "alpha (ordinal)", "p (Holm)", "were for A"):
        assert text in result.output
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["raters"]["excluded"][0]["reason"].startswith("no JSON")
    assert len(written["ratings"]["tests"]) == len(written["preferences"]["tests"]) == 12
