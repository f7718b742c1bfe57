"""Which video and which sound each system and each floor is judged with."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dicetalk.config import Evaluate
from dicetalk.evaluation.metrics.table import METRICS
from dicetalk.evaluation.scores import score_trial, set_pairs
from dicetalk.evaluation.systems import (
    DERIVED,
    own_trials,
    real_trials,
    still_trials,
    wrong_audio_trials,
    wrong_emotion_trials,
)
from dicetalk.evaluation.trial import Measured, Trial

CLIPS = [(p, e, t) for p in ("A", "B") for e in ("happy", "neutral", "sad") for t in (1, 2)]


def measured(kind: str) -> dict[str, Measured]:
    return {f"{p}-{e}-{t}": Measured(f"{p}-{e}-{t}", p, e, t, f"{kind} {p}-{e}-{t}") for p, e, t in CLIPS}


REAL, OURS = measured("real"), measured("ours")
REFERENCES = {name: f"reference {name}" for name in REAL}


def test_own_videos_are_judged_with_their_own_sound_against_their_real_clip() -> None:
    trials = list(own_trials("theirs", OURS, REAL, REFERENCES))
    assert [t.real.clip_id for t in trials] == sorted(REAL)
    for t in trials:
        name = t.real.clip_id
        expected = Trial("theirs", REAL[name], f"ours {name}", f"ours {name}", f"reference {name}")
        assert t == expected


def test_real_clips_are_the_ceiling_and_still_pictures_a_floor() -> None:
    for t in real_trials(OURS, REAL, REFERENCES):
        name = t.real.clip_id
        assert t == Trial("real", REAL[name], f"real {name}", f"real {name}", f"reference {name}")
    few = dict(list(REFERENCES.items())[:2])
    assert [t.real.clip_id for t in real_trials(OURS, REAL, few)] == sorted(few)
    trials = list(still_trials(OURS, REAL, few))
    assert [t.real.clip_id for t in trials] == sorted(few)
    for t in trials:
        name = t.real.clip_id
        assert t == Trial("still", REAL[name], f"reference {name}", f"real {name}", f"reference {name}")


def test_wrong_audio_is_that_of_the_clip_half_the_list_away() -> None:
    names = sorted(OURS)
    trials = list(wrong_audio_trials(OURS, REAL, REFERENCES))
    assert len(trials) == 12
    for index, t in enumerate(trials):
        name, other = names[index], names[(index + 6) % 12]
        assert t == Trial("wrong_audio", REAL[name], f"ours {name}", f"ours {other}", f"reference {name}")
    alone = {names[0]: OURS[names[0]]}
    assert list(wrong_audio_trials(alone, REAL, REFERENCES)) == []
    three = {name: OURS[name] for name in names[:3]}
    assert [t.heard for t in wrong_audio_trials(three, REAL, REFERENCES)] == [
        f"ours {names[i]}" for i in (1, 2, 0)
    ]


def test_wrong_emotion_is_another_emotion_of_the_same_person() -> None:
    trials = list(wrong_emotion_trials(OURS, REAL, REFERENCES))
    assert [t.real.clip_id for t in trials] == sorted(REAL)
    shown = set()
    for t in trials:
        kind, name = t.shown.split()
        assert kind == "ours" and t.heard == t.shown and t.system == "wrong_emotion"
        assert REAL[name].identity == t.real.identity and REAL[name].emotion != t.real.emotion
        assert t.reference == f"reference {t.real.clip_id}"
        shown.add(name)
    assert len(shown) > 4  # not always the same one
    calm = {name: clip for name, clip in OURS.items() if clip.emotion == "neutral"}
    assert list(wrong_emotion_trials(calm, REAL, REFERENCES)) == []


def test_floors_keep_their_names() -> None:
    assert DERIVED == ("real", "still", "wrong_audio", "wrong_emotion")


# --- the row of a video

SETTINGS = Evaluate(protocol="demo", bootstrap_samples=10, max_shift_frames=15, seed=0)


def row_of(trial: Trial) -> tuple[dict, dict]:
    return score_trial(trial, METRICS.values(), SETTINGS)


def trial(system: str = "ours", **changes) -> Trial:
    lips = np.eye(40, 6)
    points = np.random.default_rng(0).uniform(0, 1, (40, 68, 2))
    real = Measured("c", "A", "sad", 2, {"landmarks": points, "known_landmarks": points + 0.1})
    shown = {
        "lips": lips,
        "identity": np.array([[1.0, 0.0], [0.0, 2.0]]),
        "emotion": np.array([0.1, 0, 0, 0, 0, 0, 0.7, 0.2]),
        "emotion_second": np.array([0.5, 0, 0, 0, 0, 0, 0.4, 0.1]),
        "strength": np.array(1.5),
        "psnr": np.array(30.0),
        "ssim": np.array(0.9),
        "landmarks": points,
    }
    heard, reference = {"heard": np.roll(lips, 2, axis=0)[:38]}, {"reference_identity": np.array([3.0, 4.0])}
    values = {"real": real, "shown": shown, "heard": heard, "reference": reference} | changes
    return Trial(system, **values)


def test_a_row_says_everything_that_was_measured() -> None:
    row, problems = row_of(trial())
    assert not problems
    assert [row[k] for k in ("system", "clip_id", "identity", "emotion", "level")] == [
        "ours",
        "c",
        "A",
        "sad",
        2,
    ]
    assert row["av_offset_frames"] == -2 and row["f_sim"] == pytest.approx((0.6 + 0.8) / 2)
    assert row["emotion_correct"] == 1.0 and row["target_probability"] == 0.7
    assert row["emotion_second_correct"] == 0.0 and row["expression_strength"] == 1.5
    assert (row["psnr"], row["ssim"]) == (30.0, 0.9) and "lpips" not in row
    assert [row[k] for k in ("lmd", "m_lmd", "f_lmd")] == pytest.approx([0, 0, 0], abs=1e-6)


def test_landmarks_are_compared_with_those_of_the_full_video_in_pixels_of_256() -> None:
    points = np.zeros((4, 68, 2))
    points[:, 36], points[:, 45] = [0.2, 0.5], [0.7, 0.5]  # eyes half the picture apart
    real_points = points.copy()
    real_points[:, 48] = [0.2, 0.0]  # one of 20 mouth points is elsewhere: 0.19 for it, 0.01 for the others
    real = Measured("c", "A", None, 0, {"landmarks": points, "known_landmarks": real_points})
    row, _ = row_of(trial(real=real, shown={"landmarks": points}, heard={}, reference={}))
    distance = (0.2 * 19 / 20 + 19 * 0.2 / 20) / 20
    assert row["lmd"] == pytest.approx(distance / 0.5) and row["m_lmd"] == pytest.approx(256 * distance)
    assert row["f_lmd"] == pytest.approx(256 * (0.2 * 67 / 68 + 67 * 0.2 / 68) / 68)
    assert not {"sync_c", "f_sim", "emotion_correct", "psnr"} & row.keys()
    short = Measured("c", "A", None, 0, {"landmarks": points[:3]})
    assert row_of(trial(real=short))[0]["lmd"] >= 0
    lost = {"landmarks": np.full((4, 68, 2), np.nan)}
    row, problems = row_of(trial(real=real, shown=lost))
    assert set(problems) == {"lmd", "m_lmd", "f_lmd"} and "lmd" not in row
    assert all("0 of 4 frames" in reason for reason in problems.values())
    row, problems = row_of(trial(real=Measured("c", "A", None, 0, {})))
    assert not problems and "lmd" not in row


@pytest.mark.parametrize("system", ["real", "still", "wrong_emotion"])
def test_pixels_are_not_compared_where_the_clip_is_another_one(system: str) -> None:
    assert "psnr" not in row_of(trial(system))[0]


def test_clips_without_label_have_no_emotion() -> None:
    row = row_of(trial(real=Measured("c", "A", None, 0, {})))[0]
    assert not {"emotion_correct", "target_probability", "emotion_second_correct"} & row.keys()
    assert row["expression_strength"] == 1.5


def test_frechet_pairs_are_video_and_real_clip_or_neighbouring_real_clips() -> None:
    def part(value: float) -> dict:
        return {"image": np.full((2, 1), value)}

    def clips(system: str) -> list:
        return [
            SimpleNamespace(
                system=system, shown=part(i), real=SimpleNamespace(seen=part(10.0 + i), identity=f"p{i}")
            )
            for i in range(5)
        ]

    def values(pairs) -> list:
        return [(left().total.item(), right().total.item(), name) for left, right, name in pairs]

    found = values(set_pairs(clips("ours"), "image"))
    assert found == [(2.0 * i, 2 * (10.0 + i), f"p{i}") for i in range(5)]
    assert values(set_pairs(clips("real"), "image")) == [(0.0, 2.0, "p0"), (4.0, 6.0, "p2")]
    without = clips("ours")
    without[1].shown, without[2].real.seen = {}, {}
    assert [name for *_, name in values(set_pairs(without, "image"))] == ["p0", "p3", "p4"]
    assert set_pairs([], "image") == []
