"""What is read of a clip, how its landmarks are found and which crops are cut, by hand."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_face_crops import NEAREST, Known, mesh

from dicetalk.data import faces as data_faces
from dicetalk.data.shards import Sample, encode_audio, encode_landmarks, write_shard
from dicetalk.errors import DicetalkError
from dicetalk.evaluation import measure
from dicetalk.evaluation.clips import Clip, load_processed, read_clip, video_source
from dicetalk.evaluation.faces import Video, face_boxes, syncnet_faces
from dicetalk.evaluation.landmarks import LandmarkReader
from dicetalk.evaluation.metrics.landmarks import FACE, MOUTH, pixel_distance
from dicetalk.evaluation.protocol import load_protocol


def sample(clip_id: str, emotion: str | None, level: int | None, split: str) -> Sample:
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
    points = np.tile(np.array([16.0, 48.0]), (4, 68, 1))
    members = {
        "video.mp4": stream.getvalue(),
        "audio.wav": encode_audio(np.full(2560, 0.25, np.float32), 16_000),
        "landmarks.npy": encode_landmarks(points),
    }
    meta = {"identity": "M001", "emotion": emotion, "level": level, "split": split}
    return Sample(clip_id, meta | {"num_frames": 4, "fps": 25.0, "sample_rate_hz": 16_000}, members)


def test_clips_of_a_split_with_their_labels(tmp_path: Path) -> None:
    samples = [
        sample("a", "happy", 3, "test"),
        sample("b", None, None, "test"),
        sample("c", "sad", 1, "train"),
    ]
    write_shard(tmp_path / "shard-000000.tar", iter(samples))
    labelled, plain = load_processed([tmp_path], "test", 32)
    assert (labelled.clip_id, labelled.identity, labelled.emotion, labelled.level) == (
        "a",
        "M001",
        "happy",
        3,
    )
    assert (plain.clip_id, plain.emotion, plain.level) == ("b", None, 0)
    assert labelled.frames.shape == (4, 32, 32, 3) and len(labelled.audio) == 2560
    # Landmarks are fractions of the crop as it is stored, 64 px.
    assert np.unique(labelled.landmarks.reshape(-1, 2), axis=0).tolist() == [[0.25, 0.75]]
    for split, found in (("train", ["c"]), ("test", ["a", "b"])):
        assert [clip.clip_id for clip in load_processed([tmp_path], split, 32)] == found
    write_shard(tmp_path / "shard-000000.tar", iter(samples[:2]))
    with pytest.raises(DicetalkError, match="No train clips"):
        load_processed([tmp_path], "train", 32)


def test_a_video_file_is_read_with_its_sound_at_16_khz(tmp_path: Path) -> None:
    import av

    path = tmp_path / "clip.mp4"
    with av.open(path, "w") as container:
        video, sound = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=48_000)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound.layout = "mono"
        for _ in range(25):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for start in range(0, 48_000, 1024):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            block.sample_rate, block.pts = 48_000, start
            container.mux(sound.encode(block))
        container.mux(sound.encode())
    clip = read_clip(path, identity="me")
    assert clip.frames.shape == (25, 48, 64, 3) and clip.clip_id == "clip" and clip.level == 0
    assert len(clip.audio) == pytest.approx(16_000, abs=1024)
    source = video_source(path, "name", "me", "happy", 2)
    loaded = source.load()
    assert (loaded.clip_id, loaded.identity, loaded.emotion, loaded.level) == ("name", "me", "happy", 2)
    assert source.fingerprint() != video_source(path, "name", "me", "happy", 3).fingerprint()


class Tracker:
    """Finds all points in the lower right corner of what it sees, and remembers the size of that."""

    sizes: list[tuple[int, ...]] = []

    def __init__(self, *networks: object) -> None:
        pass

    def update(self, frame: np.ndarray) -> SimpleNamespace:
        self.sizes.append(frame.shape[:2])
        return SimpleNamespace(landmarks=np.tile([*frame.shape[1::-1], 0.0], (468, 1)))


@pytest.mark.parametrize(("shape", "seen"), [((128, 160), (256, 320)), ((512, 300), (512, 300))])
def test_small_frames_are_enlarged_for_the_mesh_and_points_are_not(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], seen: tuple[int, int]
) -> None:
    monkeypatch.setattr(data_faces, "FaceTracker", Tracker)
    monkeypatch.setattr(Tracker, "sizes", [])
    reader = object.__new__(LandmarkReader)
    reader._detector = reader._mesh = None
    frames = np.zeros((2, *shape, 3), np.uint8)
    points = reader.mesh(frames)
    assert Tracker.sizes == [seen] * 2
    assert points.shape == (2, 468, 2) and np.unique(points.reshape(-1, 2), axis=0).tolist() == [
        [shape[1], shape[0]]
    ]
    Tracker.sizes.clear()
    assert (reader.read(frames) == 1.0).all() and Tracker.sizes == [(256, 256)] * 2


def test_pixel_distance_of_mouth_and_face() -> None:
    real = np.random.default_rng(0).uniform(0, 255, (3, 68, 2))
    moved = real.copy()
    moved[:, 0] += [6.8, 0.0]
    # The face's centre moves by 0.1: one point is off by 6.7, 67 others by 0.1.
    assert pixel_distance(moved, real, FACE) == pytest.approx((6.7 + 67 * 0.1) / 68)
    assert pixel_distance(moved, real, MOUTH) == pytest.approx(0.0, abs=1e-12)


def test_syncnet_sees_down_to_1_8_half_sides() -> None:
    """Half side 20 around (60, 50): rows 30 to 85."""
    frames = np.zeros((20, 200, 200, 3), np.uint8)
    video = Video(frames, Known(mesh(20, 40, 30, 80, 70)))
    nothing = syncnet_faces(video, 112)
    for row, is_seen in ((29, False), (30, True), (85, True), (86, False)):
        lit = frames.copy()
        lit[:, row] = 255
        assert (syncnet_faces(Video(lit, video.finder), 112) != nothing).any() == is_seen, row


@pytest.mark.parametrize("box", [(99, 20, 140, 60), (30, 79.5, 60, 90), (-9, 10, 1, 60), (10, -9, 60, 1)])
def test_a_face_outside_the_picture_is_refused(box: tuple[float, ...]) -> None:
    video = Video(np.zeros((1, 80, 100, 3), np.uint8), Known(mesh(1, *box)))
    with pytest.raises(DicetalkError, match="leaves the picture at frame 0"):
        face_boxes(video, 1, 32, NEAREST)


def test_generated_pixels_are_compared_with_the_real_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(measure, "LandmarkReader", lambda: None)
    monkeypatch.setattr(measure, "compare_pixels", lambda *given: asked.append(given) or {"psnr": 1.0})
    definition = load_protocol("open").definition
    reader = measure.Measurer(definition, {})
    ours, real = (Clip("c", "p", None, 0, np.full((12, 32, 32, 3), v, np.uint8), np.zeros(0)) for v in (1, 2))
    parts, _ = reader.measure(ours, real=real)
    assert parts["psnr"] == 1.0 and asked[0][0].max() == 1 and asked[0][1].max() == 2
