from __future__ import annotations

import numpy as np
import pytest

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.landmarks import LEFT_EYE_OUTER, RIGHT_EYE_OUTER, LandmarkReader
from dicetalk.evaluation.metrics.landmarks import MOUTH, mouth_distance


def face(num_frames: int = 8) -> np.ndarray:
    points = np.random.default_rng(0).uniform(0.3, 0.7, (num_frames, 68, 2))
    points[:, RIGHT_EYE_OUTER], points[:, LEFT_EYE_OUTER] = [0.3, 0.4], [0.7, 0.4]
    return points


def test_one_mouth_point_off_by_one_eye_distance():
    real = face()
    generated = real.copy()
    generated[:, MOUTH.start] += [0.4, 0.0]
    # The mouth's centre moves by 1/20 of it: one point is off by 19/20, the others by 1/20.
    assert mouth_distance(generated, real) == pytest.approx((19 / 20 + 19 / 20) / 20)


def test_place_and_scale_of_the_head_do_not_count():
    real = face()
    assert mouth_distance(real + 0.1, real) == pytest.approx(0.0, abs=1e-9)
    opened = real.copy()
    opened[:, 57, 1] += 0.05
    assert mouth_distance(3 * opened, 3 * real) == pytest.approx(mouth_distance(opened, real))


def test_frames_without_a_face_are_left_out_up_to_half():
    real = face()
    generated = real + np.random.default_rng(1).normal(0, 0.01, real.shape)
    expected = mouth_distance(generated[4:], real[4:])
    generated[:4] = np.nan
    assert mouth_distance(generated, real) == pytest.approx(expected)
    generated[4] = np.nan
    with pytest.raises(DicetalkError, match="3 of 8 frames"):
        mouth_distance(generated, real)


def test_reads_a_real_face_and_no_face(shared_dir):
    import cv2

    photo = cv2.imread(str(shared_dir / "media/scikit-image__astronaut.png"))[:, :, ::-1]
    crop = np.ascontiguousarray(photo[0:300, 80:380])
    reader = LandmarkReader()
    points = reader.read(np.stack([crop, crop]))
    assert points.shape == (2, 68, 2) and np.isfinite(points).all()
    eyes, mouth = points[0, 36:48].mean(axis=0), points[0, MOUTH].mean(axis=0)
    assert 0.1 < eyes[1] < mouth[1] < 0.9
    assert np.isnan(reader.read(np.zeros((1, 64, 64, 3), np.uint8))).all()
