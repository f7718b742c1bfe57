"""Articulation, idle motion and their blend with emotions."""

from __future__ import annotations

import numpy as np
import pytest

from dicetalk.labels import CLASSES
from dicetalk.synthetic.expression import emotion_targets
from dicetalk.synthetic.motion import babble, compose, idle_motion, speech_articulation
from dicetalk.synthetic.visemes import Phoneme

WORD = [Phoneme("m", 0.1, 0.18), Phoneme("ˈɑː", 0.18, 0.4), Phoneme("p", 0.4, 0.48), Phoneme("uː", 0.48, 0.7)]
FPS = 50.0
MIDDLE_M, MIDDLE_A, MIDDLE_P, MIDDLE_U = 5, 13, 20, 28


def test_closures_close_and_vowels_open() -> None:
    mouth = speech_articulation(WORD, 40, FPS)
    assert mouth["jaw"][MIDDLE_M] < 0.05 and mouth["jaw"][MIDDLE_P] < 0.05
    assert mouth["lip_press"][MIDDLE_P] > 0.9
    assert mouth["jaw"][MIDDLE_A] > 0.8 > 0.4 > mouth["jaw"][MIDDLE_U]
    assert mouth["mouth_round"][MIDDLE_U] > 0.8 > 0.2 > mouth["mouth_round"][MIDDLE_A]


def test_lip_bite_and_silence() -> None:
    mouth = speech_articulation([Phoneme("f", 0.2, 0.3)], 40, FPS)
    assert mouth["lip_bite"].max() > 0.8
    assert mouth["voice"][-1] == 0 and mouth["jaw"][-1] == 0


def test_diphthongs_move() -> None:
    mouth = speech_articulation([Phoneme("ˈaʊ", 0.1, 0.5)], 40, FPS)
    assert mouth["jaw"][9] > 2 * mouth["jaw"][20]
    assert mouth["mouth_round"][20] > 0.6


@pytest.mark.parametrize(("emotion", "level"), CLASSES)
def test_speech_stays_readable_under_every_emotion(emotion: str, level: int) -> None:
    states = compose(emotion_targets(emotion, level), speech_articulation(WORD, 40, FPS))
    jaw = np.array([state.jaw for state in states])
    assert jaw[MIDDLE_A] - jaw[MIDDLE_P] > 0.8
    assert jaw[MIDDLE_P] < 0.1 and states[MIDDLE_P].lip_press > 0.9
    assert states[MIDDLE_U].mouth_round > 0.7


def test_emotion_returns_when_speech_ends() -> None:
    target = emotion_targets("surprised", 3)
    states = compose(target, speech_articulation(WORD, 60, FPS))
    assert states[-1].jaw == pytest.approx(target.jaw)
    assert states[MIDDLE_P].brow_inner_left == target.brow_inner_left


def test_strength_varies_little_around_the_target() -> None:
    target = emotion_targets("happy", 3)
    smiles = [
        state.smile_left
        for state in compose(target, idle_motion(np.random.default_rng(0), 200, 25.0), seed=4)
    ]
    assert 0 < np.std(smiles) < 0.1 and np.mean(smiles) == pytest.approx(1.0, abs=0.1)


def test_idle_motion_is_smooth_and_blinks() -> None:
    motion = idle_motion(np.random.default_rng(1), 250, 25.0)
    assert all(len(track) == 250 for track in motion.values())
    assert motion["lid_left"].min() < -1.5
    assert np.abs(np.diff(motion["yaw"])).max() < 0.05 < np.ptp(motion["yaw"])


def test_babble_moves_the_jaw_and_is_reproducible() -> None:
    first, second = (babble(np.random.default_rng(2), 100, 25.0) for _ in range(2))
    assert np.ptp(first["jaw"]) > 0.5
    assert all(np.array_equal(first[name], second[name]) for name in first)
