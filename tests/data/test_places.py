"""Boxes, points and masks at places worked out by hand: crops, mouth, landmarks, expression."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_face import SETTINGS, row

from dicetalk.data import clip, track
from dicetalk.data.dataset import face_masks, mouth_boxes
from dicetalk.data.expression import expression_features
from dicetalk.data.faces import TrackedFace
from dicetalk.data.geometry import overlap
from dicetalk.data.media import MediaInfo
from dicetalk.data.shards import encode_audio, encode_landmarks
from dicetalk.data.track import Track, _bridge, _is_cut, _thumbnail
from dicetalk.errors import DicetalkError
from dicetalk.models.boxes import mask_rectangle, square_crop

# --- boxes


def test_crops_by_hand() -> None:
    # 60 x 90 grow by half on each side to 120 x 180; the side is 120, around the centre (130, 145).
    assert square_crop((100, 100, 160, 190), 0.5, 400, 400) == (70, 85, 120)
    assert square_crop((100, 100, 190, 160), 0.5, 400, 400) == (85, 70, 120)
    # Cut by the left and the upper border: 0 to 75 and 0 to 80; 75 around (25, 20) is shifted inside.
    assert square_crop((0, -10, 50, 50), 0.5, 400, 400) == (0, 0, 75)
    # At the right and lower border: 310 to 400 and 300 to 395, a side of 90 ending at the border.
    assert square_crop((340, 330, 400, 390), 0.5, 400, 395) == (310, 305, 90)


def test_mask_rectangles_by_hand() -> None:
    # Centre (60, 50); halves of 1.5 times 40 x 20: 30 and 15.
    assert mask_rectangle((40, 40, 40, 20), 1.5, 200, 100) == (30, 35, 90, 65)
    # Halves are rounded down: 1.1 * 41 / 2 = 22.55 and the centre (2 * 40 + 41) / 2 = 60.5.
    assert mask_rectangle((40, 40, 41, 41), 1.1, 200, 100) == (38, 38, 82, 82)
    assert mask_rectangle((-10, 90, 40, 20), 1.0, 25, 100) == (0, 90, 25, 100)


def test_overlap_counts_both_axes() -> None:
    # 4 x 3 shared of 60 + 36 - 12.
    assert overlap((0, 0, 10, 6), (6, 3, 6, 6)) == pytest.approx(12 / 84)
    assert overlap((6, 3, 6, 6), (0, 0, 10, 6)) == pytest.approx(12 / 84)
    assert overlap((0, 0, 10, 10), (20, 0, 10, 10)) == overlap((0, 0, 10, 10), (0, 20, 10, 10)) == 0.0
    assert overlap((1, 1, 0, 0), (1, 1, 0, 0)) == 0.0
    assert overlap((0, 0, 0.5, 0.5), (0, 0, 0.5, 0.5)) == 1.0


def test_the_mouth_is_the_lower_middle_of_a_face() -> None:
    assert mouth_boxes(np.array([[10, 20, 40, 60]])).tolist() == [[18.0, 53.0, 24.0, 24.0]]
    # In a face as iBUG's mean shape has it (eyes at 0.3 of the height, mouth at 0.75), eyes lie outside.
    (x, y, width, height) = mouth_boxes(np.array([[0, 0, 100, 100]]))[0]
    assert x < 50 < x + width and y < 75 < y + height and not y < 30 < y + height


def test_masks_are_filled_from_their_box_on() -> None:
    masks = face_masks(np.array([[1.0, 2.9, 3.0, 2.0]]), 8)
    assert masks.shape == (1, 1, 8, 8) and masks.dtype == np.float32
    assert np.argwhere(masks[0, 0]).tolist() == [[y, x] for y in (2, 3) for x in (1, 2, 3)]


# --- landmarks


def test_landmarks_of_a_clip_lie_where_the_scaled_picture_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixel centres: the border of the crop at `origin - 0.5` stays the border of the picture at -0.5."""
    boxes = np.tile([60.0, 40.0, 40.0, 40.0], (25, 1))
    points = np.zeros((25, 68, 2))
    points[:, 0] = [39.5, 19.5]  # the crop is 80 px from (40, 20) on
    points[:, 1] = [119.5, 99.5]
    points[:, 2] = [80.0, 60.0]
    followed = Track(points, boxes, (160, 120), 0.9, 0)
    monkeypatch.setattr(clip, "follow_face", lambda *_: followed)
    monkeypatch.setattr(clip, "_check_files", lambda *_: MediaInfo(**info()))
    monkeypatch.setattr(clip, "read_audio", lambda *_: np.full(16000, 0.5, np.float32))
    monkeypatch.setattr(clip, "_encode_crop", lambda *_: b"")
    monkeypatch.setattr(clip, "networks", lambda *_: None)
    sample = clip.preprocess_clip(row(), "", SETTINGS)
    assert sample.meta["source_crop"] == [40, 20, 80]
    found = sample.landmarks()[0, :3].tolist()
    assert found == [[-0.5, -0.5], [63.5, 63.5], [pytest.approx(31.9), pytest.approx(31.9)]]
    # OpenCV agrees: a bright pixel at (80, 60) has its centre of mass there.
    image = np.zeros((120, 160), np.float32)
    image[60, 80] = 1.0
    scaled = cv2.resize(image[20:100, 40:120], (64, 64), interpolation=cv2.INTER_AREA)
    y, x = (np.indices((64, 64)) * scaled).sum((1, 2)) / scaled.sum()
    assert (x, y) == (pytest.approx(31.9, abs=0.2), pytest.approx(31.9, abs=0.2))
    assert sample.meta["box"] == [16.0, 16.0, 32.0, 32.0]
    assert sample.meta["mask_box"] == [15, 15, 34, 34]  # 32 px by 1.1, halves rounded down to 17
    assert sample.meta["loudness_db"] == pytest.approx(20 * math.log10(0.5), abs=0.01)
    assert sample.meta["face_px"] == 40.0 and sample.meta["num_frames"] == 25
    assert len(sample.audio()) == 16000
    boxes[:, 2:] = [30.0, 40.0]
    assert clip.preprocess_clip(row(), "", SETTINGS).meta["face_px"] == 30.0  # the shorter side


def test_a_face_is_followed_in_its_part_of_the_frame_and_placed_in_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    class Tracker:
        face_counts = [1]

        def __init__(self, *given: object) -> None:
            pass

        def update(self, frame: np.ndarray) -> TrackedFace:
            seen.append(frame)
            return TrackedFace(np.full((468, 3), 5.0), np.array([4.0, 3.0, 20.0, 30.0]), 0.75)

    frame = np.zeros((120, 160, 3), np.uint8)
    frame[30:90, 50:100] = 200
    monkeypatch.setattr(track, "networks", lambda *_: (None, None, None))
    monkeypatch.setattr(track, "FaceTracker", Tracker)
    monkeypatch.setattr(track, "read_video", lambda *_: [frame] * 3)
    place = {"crop_x": 50, "crop_y": 30, "crop_w": 50, "crop_h": 60}
    followed = track.follow_face(Path("v.mp4"), 0.0, 1.0, row() | place, SETTINGS)
    assert [(part.shape, part.min()) for part in seen] == [((60, 50, 3), 200)] * 3
    assert followed.landmarks.shape == (3, 68, 2) and (followed.landmarks == [55.0, 35.0]).all()
    assert followed.boxes.tolist() == [[54.0, 33.0, 20.0, 30.0]] * 3
    assert (followed.frame_size, followed.min_score, followed.num_bridged) == ((160, 120), 0.75, 0)


def info() -> dict:
    import dataclasses

    values = {field.name: 0 for field in dataclasses.fields(MediaInfo)}
    return values | {"has_video": True, "has_audio": True, "duration_seconds": 1.0}


def test_loudness_is_that_of_the_root_mean_square() -> None:
    assert clip._loudness_db(np.array([0.3, -0.4], np.float32)) == pytest.approx(10 * math.log10(0.125))
    assert clip._loudness_db(np.zeros(4, np.float32)) == clip._loudness_db(np.zeros(0, np.float32)) == -120.0
    assert clip._loudness_db(np.full(4, 2e-6)) == pytest.approx(20 * math.log10(2e-6))


def test_sound_and_landmarks_survive_their_files() -> None:
    from dicetalk.data.shards import Sample

    samples = np.array([0.0, 0.5, -1.0, 1.0, 1 / 32768, 2.0], np.float32)
    points = np.arange(2 * 68 * 2, dtype=np.float32).reshape(2, 68, 2)
    stored = Sample(
        "c", {}, {"audio.wav": encode_audio(samples, 16000), "landmarks.npy": encode_landmarks(points)}
    )
    assert stored.audio().tolist() == [0.0, 0.5, -1.0, 32767 / 32768, 1 / 32768, 32767 / 32768]
    assert np.array_equal(stored.landmarks(), points)
    with pytest.raises(DicetalkError, match="non-finite"):
        encode_landmarks(np.where(points > 3, np.nan, points))


def test_gaps_are_bridged_by_straight_lines() -> None:
    values = np.array([[0.0, 10.0], [4.0, 2.0]])
    bridged = _bridge(values, np.array([1, 5]), 7)
    assert bridged[:, 0].tolist() == [0, 0, 1, 2, 3, 4, 4]
    assert bridged[:, 1].tolist() == [10, 10, 8, 6, 4, 2, 2]


def test_a_cut_is_a_jump_of_the_face_or_of_brightness() -> None:
    dark, bright = np.zeros((2, 2), np.float32), np.full((2, 2), 31.0, np.float32)
    box, near, far = (np.array([x, 0, 10, 10]) for x in (0, 4, 6))  # overlaps of 6 / 14 and 4 / 16
    assert not _is_cut((box, dark), (near, dark + 29), SETTINGS)
    assert _is_cut((box, dark), (far, dark), SETTINGS)
    assert _is_cut((box, dark), (near, bright), SETTINGS)
    thumbnail = _thumbnail(np.arange(64 * 96 * 3, dtype=np.float32).reshape(64, 96, 3))
    assert thumbnail.shape == (32, 32)
    assert thumbnail[1, 1] == 3 * (2 * 96 + 3) + 1  # row 2, column 3, mean of three channels


def upright_face() -> np.ndarray:
    """68 points whose eyes and nose bridge already lie on the anchors (half the eye distance is 1)."""
    points = np.random.default_rng(0).uniform(-2, 3, (68, 2))
    points[[36, 39]] = [[-1.5, 0.1], [-0.5, -0.1]]
    points[[42, 45]] = [[0.5, 0.0], [1.5, 0.0]]
    points[[27, 28]] = [[0.1, 0.1], [-0.1, 0.3]]
    return points


@pytest.mark.parametrize(
    ("degrees", "scale", "shift"), [(0, 1, (0, 0)), (25, 40, (200, 90)), (-70, 0.3, (-5, 2))]
)
def test_expression_is_free_of_place_size_and_roll(degrees: float, scale: float, shift: tuple) -> None:
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    moved = scale * upright_face() @ turn.T + shift
    features = expression_features(moved[None]).reshape(68, 2)
    assert features == pytest.approx(upright_face(), abs=1e-4)


def test_expression_fits_by_least_squares() -> None:
    points = upright_face()
    points[[27, 28]] = 0.0, 0.8  # the nose bridge is longer than the anchors say
    features = expression_features(points[None]).reshape(68, 2)
    # Similarity `a z + b` of the three anchors, a and b complex, by an ordinary solver.
    source = np.array([-1, 1, 0.8j])
    target = np.array([-1, 1, 0.2j])
    design = np.stack([source, np.ones(3)], 1)
    a, b = np.linalg.lstsq(design, target, rcond=None)[0]
    expected = a * (points[:, 0] + 1j * points[:, 1]) + b
    assert features == pytest.approx(np.stack([expected.real, expected.imag], 1), abs=1e-5)


def test_unusable_landmarks_are_refused() -> None:
    for bad in (np.zeros((2, 68, 2)), np.full((1, 68, 2), np.nan)):
        with pytest.raises(DicetalkError, match="coincide"):
            expression_features(bad)
    for shape in ((68, 2), (1, 67, 2), (1, 68, 3)):
        with pytest.raises(DicetalkError, match="shape"):
            expression_features(np.ones(shape))
