"""Identities, expressions and the renderer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dicetalk.errors import DicetalkError
from dicetalk.labels import CLASSES, EMOTIONS, NEUTRAL
from dicetalk.synthetic.clips import face_view, training_takes
from dicetalk.synthetic.expression import CONTROLS, FaceState, emotion_targets
from dicetalk.synthetic.identity import sample_identity
from dicetalk.synthetic.render import portrait_view, render_view, view_box


def identity(seed: int = 0):
    return sample_identity(np.random.default_rng(seed))


def render_head(person, state: FaceState, size: int) -> np.ndarray:
    return render_view(person, state, portrait_view(size))


def head_box(person, state: FaceState, size: int) -> tuple[float, float, float, float]:
    return view_box(person, state, portrait_view(size))


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(float) - second).mean())


def test_equal_seeds_give_equal_people_and_pictures() -> None:
    assert identity(3) == identity(3)
    state = emotion_targets("fear", 2)
    assert np.array_equal(render_head(identity(3), state, 64), render_head(identity(3), state, 64))


def test_people_differ_more_than_emotions() -> None:
    faces = [render_head(identity(seed), FaceState(), 64) for seed in range(6)]
    between = [difference(faces[i], faces[j]) for i in range(6) for j in range(i)]
    within = [difference(faces[0], render_head(identity(0), emotion_targets(*pair), 64)) for pair in CLASSES]
    assert min(between) > max(within)


@pytest.mark.parametrize("emotion", [emotion for emotion in EMOTIONS if emotion != NEUTRAL])
def test_levels_grow_monotonically(emotion: str) -> None:
    strengths = [
        np.array([getattr(emotion_targets(emotion, level), name) for name in CONTROLS]) for level in (1, 2, 3)
    ]
    moved = strengths[2] != 0
    assert moved.any()
    assert (np.abs(strengths[0]) < np.abs(strengths[1]))[moved].all()
    assert (np.abs(strengths[1]) < np.abs(strengths[2]))[moved].all()
    neutral = render_head(identity(), FaceState(), 64)
    seen = [
        difference(neutral, render_head(identity(), emotion_targets(emotion, level), 64))
        for level in (1, 2, 3)
    ]
    assert seen == sorted(seen)


def test_neutral_has_one_level_only() -> None:
    assert emotion_targets(NEUTRAL, 1) == FaceState()
    with pytest.raises(DicetalkError, match="neutral"):
        emotion_targets(NEUTRAL, 2)


def test_every_pair_of_emotions_differs_in_the_eye_region() -> None:
    person = replace(identity(1), glasses="none")
    view = face_view(person, [FaceState()], 64, 0.3)
    eyes = {
        e: render_view(person, emotion_targets(e, 1 if e == NEUTRAL else 3), view)[8:36] for e in EMOTIONS
    }
    for first in EMOTIONS:
        for second in EMOTIONS:
            assert first == second or difference(eyes[first], eyes[second]) > 1.5, (first, second)


def test_sub_pixel_motion_is_visible_and_smooth() -> None:
    still = render_head(identity(), FaceState(), 64)
    nudges = [
        difference(still, render_head(identity(), FaceState(shift_x=x), 64)) for x in (0.01, 0.02, 0.04)
    ]
    assert 0 < nudges[0] < nudges[1] < nudges[2] < 5


def test_head_box_follows_the_head() -> None:
    x, y, width, height = head_box(identity(), FaceState(), 100)
    assert 45 < width < 55 and width == height and 0 < x < x + width < 100
    moved = head_box(identity(), FaceState(shift_x=0.2), 100)
    assert moved[0] - x == pytest.approx(0.2 * 25) and moved[1] == pytest.approx(y)


def test_training_takes_are_reproducible_and_never_repeat() -> None:
    takes = training_takes(np.random.default_rng(5), 2, 6, 12.5, 32)
    assert takes.shape == (2, 6, 32, 32, 3) and takes.dtype == np.uint8
    assert np.array_equal(takes, training_takes(np.random.default_rng(5), 2, 6, 12.5, 32))
    assert difference(takes[0, 0], takes[0, -1]) > 0.5
    assert difference(takes[0], takes[1]) > 0.5
    rng = np.random.default_rng(5)
    first, second = (training_takes(rng, 1, 1, 12.5, 32) for _ in range(2))
    assert difference(first, second) > 10  # another person
