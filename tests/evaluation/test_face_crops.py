from __future__ import annotations

import numpy as np
import pytest

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.faces import (
    ARCFACE_TEMPLATE,
    DLIB_TEMPLATE,
    Video,
    aligned_faces,
    face_boxes,
    similarity,
    syncnet_faces,
)

NEAREST = 0


class Known:
    """A finder that was told where the face is."""

    def __init__(self, points: np.ndarray) -> None:
        self.points = points

    def mesh(self, frames: np.ndarray) -> np.ndarray:
        return self.points


def mesh(num_frames: int, left: float, top: float, right: float, bottom: float) -> np.ndarray:
    points = np.random.default_rng(0).uniform([left, top], [right, bottom], (num_frames, 468, 2))
    points[:, 0], points[:, 1] = [left, top], [right, bottom]
    return points


def test_similarity_finds_turn_scale_and_shift():
    source = np.random.default_rng(1).standard_normal((5, 2))
    angle, scale, shift = 0.4, 1.7, np.array([3.0, -2.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(
        similarity(source, source @ turn.T + shift), np.column_stack([turn, shift]), atol=1e-12
    )


def test_aligned_faces_have_their_points_on_the_template():
    """Bright spots where the five points are come to lie where the template wants them."""
    places = np.array([[60, 50], [110, 60], [80, 80], [60, 105], [100, 112]])
    frame = np.zeros((160, 200, 3), np.uint8)
    points = np.zeros((1, 468, 2))
    for index, (x, y) in enumerate(places):
        frame[y - 2 : y + 3, x - 2 : x + 3] = 255
        points[0, index] = x, y
    video = Video(frame[None], Known(points))
    moved = similarity(places.astype(float), ARCFACE_TEMPLATE * 112)
    (face,) = aligned_faces(video, 1, 112, [(i,) for i in range(5)], ARCFACE_TEMPLATE)
    for x, y in places @ moved[:, :2].T + moved[:, 2]:
        assert face[round(y), round(x), 0] > 100


@pytest.mark.parametrize("template", [ARCFACE_TEMPLATE, DLIB_TEMPLATE])
def test_templates_lie_inside_their_crop(template):
    assert template.shape == (5, 2) and 0 < template.min() and template.max() < 1


def test_box_of_the_landmarks():
    frames = np.zeros((2, 100, 120, 3), np.uint8)
    frames[:, 20:60, 30:80] = 200
    faces = face_boxes(Video(frames, Known(mesh(2, 30, 20, 80, 60))), 1, 50, NEAREST)
    assert faces.shape == (2, 50, 50, 3) and (faces == 200).all()


def test_syncnet_crop_shows_more_below_than_above():
    """Half side 20 around (60, 50): up 20, down int(20 * 1.8) = 36, and 28 to either side."""
    frames = np.zeros((20, 200, 200, 3), np.uint8)
    frames[:, 30:86, 32:88] = 255
    faces = syncnet_faces(Video(frames, Known(mesh(20, 40, 30, 80, 70))), 112)
    assert faces.shape == (20, 112, 112, 3)
    assert (faces == 255).all()
    frames[:, 29] = 7
    np.testing.assert_array_equal(syncnet_faces(Video(frames, Known(mesh(20, 40, 30, 80, 70))), 112), faces)


def test_outside_of_the_picture_is_grey_for_syncnet():
    frames = np.full((20, 60, 60, 3), 255, np.uint8)
    faces = syncnet_faces(Video(frames, Known(mesh(20, 0, 0, 40, 40))), 56)
    assert (faces[:, 30, 2] == 110).all() and (faces[:, 30, 40] == 255).all()


def test_lost_faces_are_bridged_or_refused():
    points = mesh(20, 40, 30, 80, 70)
    points[3:6] = np.nan
    frames = np.random.default_rng(0).integers(0, 255, (20, 100, 120, 3), dtype=np.uint8)
    video = Video(frames, Known(points))
    assert len(syncnet_faces(video, 56)) == 20
    assert len(face_boxes(video, 1, 32, NEAREST)) == 17
    points[:12] = np.nan
    with pytest.raises(DicetalkError, match="8 of 20 frames"):
        face_boxes(Video(frames, Known(points)), 1, 32, NEAREST)
