"""Detections, mesh points and tracking with networks that say known numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dicetalk.data import landmarks
from dicetalk.data.detect import (
    INPUT_PX,
    Face,
    FaceDetector,
    _anchors,
    _largest_first,
    _starts,
    _suppress,
    _tiles,
)
from dicetalk.data.faces import FaceTracker, TrackedFace
from dicetalk.data.landmarks import Roi, box_of_landmarks, roi_of_face, roi_of_landmarks


def test_region_of_a_detection() -> None:
    keypoints = np.array([[10.0, 20.0], [20.0, 30.0], [0, 0], [0, 0], [0, 0], [0, 0]])
    region = roi_of_face(Face(np.array([10.0, 20.0, 30.0, 40.0]), 1.0, keypoints))
    assert region.centre.tolist() == [25.0, 40.0] and region.side == 60.0
    assert region.angle == pytest.approx(math.pi / 4)


@pytest.mark.parametrize("degrees", [0, 30, -50])
def test_region_of_landmarks_turns_with_the_face(degrees: float) -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (468, 3))
    points[0], points[1] = [-4, -2, 0], [6, 10, 0]  # the box of the upright face: centre (1, 4), side 12
    points[33], points[263] = [-1, 0, 0], [1, 0, 0]
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    moved = points.copy()
    moved[:, :2] = points[:, :2] @ turn.T + [100, 50]
    region = roi_of_landmarks(moved)
    assert region.angle == pytest.approx(angle) and region.side == pytest.approx(18.0)
    assert region.centre == pytest.approx(turn @ [1, 4] + [100, 50])
    assert box_of_landmarks(points).tolist() == [-4, -2, 10, 12]


def test_the_68_points_are_the_vertices_of_corners_and_lids() -> None:
    points = landmarks.MEDIAPIPE_TO_68.tolist()
    # Of MediaPipe's map: outer and inner corner and lids of either eye, in the order of the eye aspect ratio.
    assert points[36:42] == [33, 160, 158, 133, 153, 144] and points[42:48] == [362, 385, 387, 263, 373, 380]
    assert (points[48], points[54], points[33], points[8]) == (61, 291, 2, 152)  # mouth corners, nose, chin
    assert (points[62], points[66]) == (13, 14)  # the middle of the inner lips
    assert (landmarks.RIGHT_EYE_OUTER, landmarks.LEFT_EYE_OUTER) == (points[36], points[45])


class Net:
    """Says the corners and the middle of its input, whatever it shows."""

    def __init__(self, logit: float = 2.0) -> None:
        self.points = np.zeros((468, 3), np.float32)
        self.points[0], self.points[1], self.points[2] = [0, 0, 0], [192, 0, 96], [96, 96, 0]
        self.logit = logit

    def setInput(self, blob: np.ndarray) -> None:
        self.blob = blob

    def forward(self, names: list[str]) -> list[np.ndarray]:
        return [self.points.reshape(1, -1), np.array([[self.logit]], np.float32)]


def test_mesh_points_are_turned_back_into_the_frame() -> None:
    mesh = object.__new__(landmarks.FaceMesh)
    mesh._network = Net()
    frame = np.zeros((200, 200, 3), np.uint8)
    frame[:, :, 0] = np.arange(200)  # red says which column
    points, score = mesh.landmarks(frame, Roi(np.array([100.0, 80.0]), 96.0, math.pi / 2))
    # A quarter turn clockwise: the crop's right is the frame's bottom, its bottom the frame's left.
    assert points[0] == pytest.approx([148, 32, 0], abs=1e-4)
    assert points[1] == pytest.approx([148, 128, 48], abs=1e-4)
    assert points[2] == pytest.approx([100, 80, 0], abs=1e-4)
    assert score == pytest.approx(1 / (1 + math.exp(-2)))
    # The network sees values in [0, 1]: down its y axis the frame columns run backwards by half a pixel each.
    red = mesh._network.blob[0, 0]
    assert red.shape == (192, 192)
    assert red[0, 0] == pytest.approx(148 / 255, abs=0.01) and red[100, 50] == pytest.approx(
        98 / 255, abs=0.01
    )


def test_anchors_are_the_centres_of_two_grids() -> None:
    anchors = _anchors()
    assert anchors.shape == (896, 2)
    assert anchors[0].tolist() == anchors[1].tolist() == [1 / 32, 1 / 32]
    assert anchors[2].tolist() == [3 / 32, 1 / 32] and anchors[32].tolist() == [1 / 32, 3 / 32]
    assert anchors[512].tolist() == anchors[517].tolist() == [1 / 16, 1 / 16]
    assert anchors[518].tolist() == [3 / 16, 1 / 16] and anchors[-1].tolist() == [15 / 16, 15 / 16]


def detector(min_score: float = 0.5) -> FaceDetector:
    found = object.__new__(FaceDetector)
    found.min_score, found._anchors = min_score, _anchors()
    return found


def test_detections_are_decoded_from_their_anchor() -> None:
    values = np.zeros((896, 16))
    values[2] = [12.8, -6.4, 25.6, 51.2, *[64.0, 32.0] * 6]  # of 128 px: 0.1, -0.05, 0.2, 0.4 and 0.5, 0.25
    logits = np.full(896, -9.0)
    logits[2] = 0.0
    (face,) = detector()._decode(logits, values, 100, 50, 400)
    # Centre (3/32 + 0.1, 1/32 - 0.05) of 400 px, from (100, 50) on; size 80 x 160.
    centre = np.array([100 + 400 * (3 / 32 + 0.1), 50 + 400 * (1 / 32 - 0.05)])
    assert face.box == pytest.approx([*(centre - [40, 80]), 80.0, 160.0])
    assert face.score == 0.5
    keypoint = [100 + 400 * (3 / 32 + 0.5), 50 + 400 * (1 / 32 + 0.25)]
    assert face.keypoints == pytest.approx(np.tile(keypoint, (6, 1)))
    assert detector(0.51)._decode(logits, values, 0, 0, 1) == []


def face(x: float, score: float, side: float = 10.0, y: float = 0.0) -> Face:
    return Face(np.array([x, y, side, side]), score, np.full((6, 2), x))


def test_overlapping_detections_are_merged_by_their_scores() -> None:
    merged = _suppress([face(0, 0.6), face(5, 0.9), face(40, 0.7), face(5.6, 0.3)])
    # 5 and 0 share a third, 5.6 more: (0.9 * 5 + 0.6 * 0 + 0.3 * 5.6) / 1.8.
    assert [f.score for f in merged] == [0.9, 0.7]
    assert merged[0].box[0] == pytest.approx(6.18 / 1.8) and merged[0].keypoints[3, 1] == pytest.approx(
        6.18 / 1.8
    )
    assert merged[1].box[0] == pytest.approx(40.0)
    assert len(_suppress([face(0, 0.6), face(5.4, 0.9)])) == 2  # 4.6 / 15.4 is below 0.3
    wide, high = (Face(np.array([0, 0, *size]), 1.0, np.zeros((6, 2))) for size in ((10.0, 2.0), (4.0, 6.0)))
    assert _largest_first([wide, high])[0] is high
    assert [f.box[2] for f in _largest_first([face(0, 1, 5), face(0, 1, 9), face(0, 1, 7)])] == [9, 7, 5]


def test_tiles_cover_the_frame_and_overlap_by_half() -> None:
    assert _starts(100, 100) == [0]
    assert _starts(150, 100) == [0, 50] and _starts(160, 100) == [0, 30, 60]
    assert list(_tiles(300, 200, 1.0)) == [(0, 0, 200), (100, 0, 200)]
    tiles = list(_tiles(300, 200, 0.5))
    assert len(tiles) == 5 * 3 and tiles[0] == (0, 0, 100) and tiles[-1] == (200, 100, 100)
    assert tiles[1] == (50, 0, 100)


def test_a_square_of_the_frame_is_what_the_detector_sees() -> None:
    seen = []

    class Blaze:
        def setInput(self, blob: np.ndarray) -> None:
            seen.append(blob)

        def forward(self, names: list[str]) -> list[np.ndarray]:
            return [np.full((1, 896, 1), -9.0), np.zeros((1, 896, 16))]

    found = detector()
    found._network = Blaze()
    frame = np.full((64, 100, 3), 255, np.uint8)
    frame[:, 50:] = 0
    # 256 px from (-128, -64) on, at half the size: the frame begins at (64, 32), its bright half is 25 wide.
    assert found.detect_in(frame, -128, -64, 256) == []
    red = seen[0][0, 0]
    assert red.shape == (INPUT_PX, INPUT_PX) and red.min() == -1.0 and red.max() == 1.0
    rows, columns = np.nonzero(red > 0.9)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (32, 63, 64, 88)
    assert found.detect_in(frame, 100, 0, 50) == found.detect_in(frame, 0, 64, 50) == [] and len(seen) == 1
    assert found.detect_in(frame, 90, -40, 50) == [] and len(seen) == 2
    # Enlarged by 128 / 50: row 0 lies at 102, column 90 at 0; ten dark columns.
    assert (seen[1][0, 0] == -1.0).all()


class Mesh:
    """Finds a face where it is told to look, as large as that; frames of zeros show none."""

    def landmarks(self, frame: np.ndarray, where: Face | Roi) -> tuple[np.ndarray, float]:
        points = np.zeros((468, 3))
        region = where if isinstance(where, Roi) else roi_of_face(where)
        half = region.side / 3
        points[:, :2] = region.centre
        points[0, :2], points[1, :2] = region.centre - half, region.centre + half
        points[33, 0] -= 1
        points[263, 0] += 1
        return points, float(frame.max()) / 200


class Detector:
    def __init__(self, faces: list[Face]) -> None:
        self.faces, self.calls = faces, []

    def searches(self, frame: np.ndarray):
        self.calls.append("all")
        yield self.faces

    def detect_in(self, frame: np.ndarray, left: int, top: int, side: int) -> list[Face]:
        self.calls.append((left, top, side))
        return self.faces if side != 100 else []


def tracked(faces: list[Face], **settings) -> FaceTracker:
    for each in faces:
        each.keypoints[1] += [1, 0]
    return FaceTracker(Detector(faces), Mesh(), **({"redetect_every_frames": 2} | settings))


def test_the_tracker_looks_again_every_few_frames_near_the_face() -> None:
    tracker = tracked([face(30, 1.0, 20, 40)])
    frame = np.full((80, 100, 3), 200, np.uint8)
    boxes = [tracker.update(frame).box.tolist() for _ in range(5)]
    assert boxes == [[30, 40, 20, 20]] * 5
    # First the whole frame. Every second frame that again (here without a face), then three times the box
    # around its centre: 60 px from (10, 20) on.
    near = [(0, 0, 100), (10, 20, 60)]
    assert tracker.detector.calls == ["all", *near, *near]
    assert tracker.face_counts == [1, 1, 1]


def test_a_face_that_is_lost_is_sought_everywhere() -> None:
    tracker = tracked([face(30, 1.0, 20, 40)])
    frame = np.full((80, 100, 3), 200, np.uint8)
    assert tracker.update(frame) is not None
    assert tracker.update(frame // 4) is None  # a score of 0.25
    assert tracker.update(frame // 2) is not None  # of 0.5
    assert tracker.detector.calls == ["all", (0, 0, 100), (10, 20, 60), "all", "all"]


def test_rivals_count_when_they_are_half_as_large() -> None:
    tracker = tracked([face(30, 1.0, 20, 40), face(70, 1.0, 10, 40), face(5, 1.0, 9, 40)])
    found = tracker.update(np.full((80, 100, 3), 200, np.uint8))
    assert isinstance(found, TrackedFace) and found.box[2] == pytest.approx(20)
    assert tracker.face_counts == [2]
