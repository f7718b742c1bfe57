"""Every rule that keeps, cuts or rejects a clip."""

from __future__ import annotations

import wave

import numpy as np
import pytest
from fake_face import FACE, RATE, SETTINGS, WIDTH, SquareTracker, noise, picture, row, write_clip

from dicetalk.data import clip, track
from dicetalk.data.clip import preprocess_clip
from dicetalk.data.media import write_video
from dicetalk.data.reasons import REASONS, Rejected
from dicetalk.data.shards import Sample


@pytest.fixture(autouse=True)
def squares_are_faces(monkeypatch):
    """Replace the networks; the rules are the same for every tracker."""
    monkeypatch.setattr(track, "FaceTracker", SquareTracker)
    for module in (track, clip):
        monkeypatch.setattr(module, "networks", lambda landmarks: (None, None, None))


def run(folder, settings=SETTINGS, **changes) -> Sample | Rejected:
    return preprocess_clip(row(**changes), folder, settings)


def rejected(folder, **changes) -> tuple[str, str]:
    outcome = run(folder, **changes)
    assert isinstance(outcome, Rejected) and outcome.code in REASONS
    return outcome.code, outcome.detail


def test_a_good_clip_is_cropped_around_the_face(tmp_path):
    write_clip(tmp_path / "clip.mp4", lambda k: picture(50 + k // 5, 40))
    sample = run(tmp_path, emotion="happy", level=2)
    assert isinstance(sample, Sample)
    assert sample.meta["emotion"] == "happy" and sample.meta["num_frames"] == 25
    frames, landmarks, sound = sample.frames(), sample.landmarks(), sample.audio()
    assert frames.shape == (25, 64, 64, 3) and landmarks.shape == (25, 68, 2) and len(sound) == RATE
    assert sample.meta["source_crop"] == [52 - FACE // 2, 40 - FACE // 2, 2 * FACE]
    # Margin 0.5 on each side of a 40-px face: 80 px become 64, the face 32 px around the centre.
    assert sample.meta["box"] == pytest.approx([16, 16, 32, 32], abs=1)
    assert sample.meta["mask_box"] == pytest.approx([14, 14, 34, 34], abs=2)
    for frame, points in zip(frames, landmarks, strict=True):
        bright = np.nonzero(frame.mean(axis=-1) > 155)
        corner = np.array([bright[1].min(), bright[0].min()])
        assert np.abs(points.min(axis=0) - corner).max() < 1.5


def test_picture_and_sound_stay_together(tmp_path):
    clicks = noise(2, 0.01)
    clicks[RATE] = 0.9  # at frame 25, when the square grows
    write_clip(tmp_path / "clip.mp4", lambda k: picture(side=46 if k == 25 else FACE), 50, clicks)
    sample = run(tmp_path, start_seconds=0.4, end_seconds=1.6)
    sizes = [(frame > 155).mean() for frame in sample.frames()]
    assert sample.meta["num_frames"] == 30 and len(sample.audio()) == 1.2 * RATE
    assert int(np.argmax(sizes)) == 15 and abs(int(np.abs(sample.audio()).argmax()) - 15 * 640) < 20


def test_short_gaps_are_bridged(tmp_path):
    write_clip(tmp_path / "clip.mp4", lambda k: picture(level=60, side=0 if 10 <= k < 13 else FACE, x=40 + k))
    sample = run(tmp_path)
    assert sample.meta["bridged_frames"] == 3
    x = sample.landmarks()[:, :, 0].mean(axis=1)
    assert np.abs(np.diff(x)).max() < 2 * np.abs(np.diff(x)).mean()


def test_long_clips_are_cut(tmp_path):
    write_clip(tmp_path / "clip.mp4", num_frames=100)
    assert run(tmp_path).meta["num_frames"] == 75


def test_picture_without_sound_is_cut(tmp_path):
    write_clip(tmp_path / "clip.mp4", num_frames=50, sound=noise(1.0))
    sample = run(tmp_path)
    assert 30 <= sample.meta["num_frames"] <= 32 and len(sample.audio()) == sample.meta["num_frames"] * 640


def test_the_data_sets_crop_says_which_face(tmp_path):
    def two(k):
        frame = picture(10, 40)
        frame[40:80, 110:150] = 250
        return frame

    write_clip(tmp_path / "clip.mp4", two)
    sample = run(tmp_path, crop_x=90, crop_y=20, crop_w=70, crop_h=80)
    x, _, side = sample.meta["source_crop"]
    assert x + side <= WIDTH and x + side / 2 == pytest.approx(120, abs=12)


def test_the_published_window_can_be_the_crop(tmp_path):
    write_clip(tmp_path / "clip.mp4")
    settings = SETTINGS.model_copy(update={"crop_source": "published"})
    window = {"crop_x": 40, "crop_y": 10, "crop_w": 100, "crop_h": 100}
    assert run(tmp_path, settings, **window).meta["source_crop"] == [40, 10, 100]
    assert run(tmp_path, settings).meta["source_crop"] == run(tmp_path).meta["source_crop"]  # it has none


def test_silent_clips_can_be_kept(tmp_path):
    write_clip(tmp_path / "clip.mp4", sound=np.zeros(RATE, np.float32))
    assert rejected(tmp_path)[0] == "silent"
    sample = run(tmp_path, SETTINGS.model_copy(update={"min_loudness_db": None}))
    assert isinstance(sample, Sample) and sample.meta["loudness_db"] == -120


@pytest.mark.parametrize(
    ("code", "draw"),
    [
        ("no_face", lambda k: picture(side=0)),
        ("face_lost", lambda k: picture(side=FACE if k < 15 else 0)),
        ("face_too_small", lambda k: picture(side=12)),
        ("shot_cut", lambda k: picture(10 if k < 12 else 110)),
        ("shot_cut", lambda k: picture(level=20 if k < 12 else 120)),
        ("crop_out_of_frame", lambda k: picture(100 - 4 * k)),
    ],
)
def test_pictures_that_are_rejected(tmp_path, monkeypatch, code, draw):
    if code == "crop_out_of_frame":  # the mesh also places what lies outside of the picture
        monkeypatch.setattr(track, "FaceTracker", BlindTracker)
    write_clip(tmp_path / "clip.mp4", draw)
    assert rejected(tmp_path)[0] == code


class BlindTracker(SquareTracker):
    """Follows the square beyond the left border."""

    frame = -1

    def update(self, frame):
        self.frame += 1
        face = super().update(picture())
        shift = 100 - 6 * self.frame - 60
        face.landmarks[:, 0] += shift
        face.box[0] += shift
        return face


def test_several_faces(tmp_path, monkeypatch):
    monkeypatch.setattr(SquareTracker, "num_faces", 2)
    write_clip(tmp_path / "clip.mp4")
    assert rejected(tmp_path)[0] == "several_faces"


def test_files_that_are_rejected(tmp_path):
    write_clip(tmp_path / "short.mp4", num_frames=8)
    write_video(tmp_path / "mute.mp4", [picture()] * 25, 25)
    write_clip(tmp_path / "whole.mp4")
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "broken.mp4").write_bytes(content[: len(content) // 2])
    with wave.open(str(tmp_path / "sound.wav"), "wb") as stream:
        stream.setparams((1, 2, RATE, 0, "NONE", ""))
        stream.writeframes((noise(1) * 32767).astype("<i2").tobytes())

    def code(video, audio):
        return rejected(tmp_path, video_path=video, audio_path=audio)[0]

    assert code("short.mp4", "short.mp4") == "too_short"
    assert code("mute.mp4", "mute.mp4") == "no_audio"
    assert code("mute.mp4", None) == "no_audio"
    assert code("sound.wav", "sound.wav") == "no_video"
    assert code("broken.mp4", "whole.mp4") == "unreadable"
    assert code("nowhere.mp4", "whole.mp4") == "unreadable"
    assert code("whole.mp4", "nowhere.wav") == "unreadable"
    assert isinstance(run(tmp_path, video_path="mute.mp4", audio_path="sound.wav"), Sample)
