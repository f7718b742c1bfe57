"""How far preprocessing itself moves picture against sound: flashes and clicks through every kind of file.

A change of frame rate can be off by half a frame for one flash; what must not be is an offset that stays when
many are averaged. It is measured under both readings of time stamps: as moments (the middle of the flash
against the middle of its stamps) and as beginnings (the first bright frame against the click).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_clip import RATE, write_av
from fake_face import SETTINGS, SquareTracker, picture, row

from dicetalk.data import clip, track
from dicetalk.data.clip import preprocess_clip
from dicetalk.data.media import read_audio, read_video
from dicetalk.synthetic.recording import write_m4a

MAX_OFFSET_SECONDS = 0.010
SECONDS, GAP_SECONDS, FLASH_SECONDS = 12.0, 0.4, 0.2


def stamps(fps: float | None) -> np.ndarray:
    """Return time stamps at a constant rate, or those of a phone that drops frames and hesitates."""
    if fps is not None:
        return np.arange(int(SECONDS * fps)) / fps
    rng = np.random.default_rng(3)
    steps = rng.choice([1 / 30, 1 / 30, 1 / 30, 2 / 30, 1 / 24], 1000) * rng.uniform(0.95, 1.05, 1000)
    times = np.concatenate([[0], np.cumsum(steps)])
    return times[times < SECONDS]


def film(
    path: Path, times: np.ndarray, video_start: float = 0.0, sound_start: float = 0.0, **options
) -> tuple[np.ndarray, np.ndarray]:
    """Write flashes with a click at the first frame of each.

    Returns the clicks and the middles of the flashes' time stamps, in seconds after the first frame.
    """
    level = np.full(len(times), 60, np.uint8)
    clicks, middles = [], []
    begin = 1.0
    while begin < SECONDS - 1:
        first = int(np.searchsorted(times, begin))
        last = int(np.searchsorted(times, times[first] + FLASH_SECONDS - 1e-6))
        level[first:last] = 150
        clicks.append(times[first])
        middles.append(times[first:last].mean())
        begin += GAP_SECONDS + 0.0173  # at ever other phases of the 40-ms grid
    frames = [picture(level=value) for value in level]
    sound = click_track(np.array(clicks) + video_start - sound_start)
    write_av(path, frames, times + video_start, sound, sound_start=sound_start, **options)
    return np.array(clicks), np.array(middles)


def click_track(clicks: np.ndarray) -> np.ndarray:
    sound = np.random.default_rng(0).normal(0, 0.004, round((SECONDS + 0.5) * RATE)).astype(np.float32)
    for click in clicks:
        sound[round(click * RATE) :][:16] = 0.9
    return sound


def offsets(
    bright: np.ndarray, sound: np.ndarray, clicks: np.ndarray, middles: np.ndarray
) -> tuple[float, float]:
    """Return by how much the picture is late against the sound, as beginnings and as moments, in seconds."""
    times = np.flatnonzero(bright) / 25
    begins, moments = [], []
    for click, middle in zip(clicks, middles, strict=True):
        start = round((click - 0.15) * RATE)
        heard = (start + int(np.argmax(np.abs(sound[start : start + round(0.3 * RATE)]) > 0.3))) / RATE
        flash = times[np.abs(times - middle) < 0.2]
        begins.append(flash.min() - heard)
        moments.append(flash.mean() - heard - (middle - click))
    return float(np.mean(begins)), float(np.mean(moments))


def read(video: Path, sound: Path, start: float = 0.0, end: float | None = None):
    """Return whether each frame is a flash, and the sound, both as preprocessing reads them."""
    bright = [frame[:8, :8].mean() > 105 for frame in read_video(video, 25.0, start, end)]
    return np.array(bright), read_audio(sound, RATE, start, end)


CASES = {
    **{
        f"{fps:g} fps": ("mp4", fps, {})
        for fps in (22.13, 24000 / 1001, 24, 25, 30000 / 1001, 30, 50, 60, 120)
    },
    "variable rate": ("mp4", None, {}),
    "variable rate, mkv": ("mkv", None, {}),
    "sound 44.1 kHz stereo": ("mp4", 25, {"rate": 44100, "stereo": True}),
    "sound 48 kHz, mkv": ("mkv", 30, {"rate": 48000}),
    "sound 22.05 kHz, mov": ("mov", 29.97, {"rate": 22050}),
    "uncompressed sound": ("mov", 25, {"sound_codec": "pcm_s16le"}),
    "mp3": ("mkv", 25, {"sound_codec": "libmp3lame", "rate": 44100}),
    "opus, webm": ("mkv", 25, {"sound_codec": "libopus", "rate": 48000}),
    "both start at 1.3 s": ("mkv", 25, {"video_start": 1.3, "sound_start": 1.3}),
    "picture starts late": ("mp4", 25, {"video_start": 0.517}),
    "picture starts late, mkv": ("mkv", 30, {"video_start": 0.517}),
    "sound starts late": ("mp4", 25, {"sound_start": 0.333}),
    "sound starts late, mkv": ("mkv", 50, {"sound_start": 0.333}),
    "transport stream": ("ts", 25, {}),
    "transport stream, sound late": ("ts", 29.97, {"sound_start": 0.25, "rate": 48000}),
    "avi": ("avi", 25, {"codec": "mpeg4", "sound_codec": "pcm_s16le"}),
}


@pytest.mark.parametrize("case", CASES)
def test_picture_and_sound_stay_together(tmp_path, case):
    suffix, fps, options = CASES[case]
    path = tmp_path / f"clip.{suffix}"
    clicks, middles = film(path, stamps(fps), **options)
    begins, moments = offsets(*read(path, path), clicks, middles)
    print(f"{case}: {1000 * begins:+.1f} ms as beginnings, {1000 * moments:+.1f} ms as moments")
    assert abs(begins + moments) / 2 < MAX_OFFSET_SECONDS
    assert (
        max(abs(begins), abs(moments)) < MAX_OFFSET_SECONDS + 1e-6
    )  # 50 fps: every other frame, 10 and 0 ms


def test_sound_in_a_file_of_its_own(tmp_path):
    """As in MEAD: both files start at their own zero, the AAC file with an encoder delay."""
    clicks, middles = film(tmp_path / "video.mp4", stamps(30))
    write_m4a(tmp_path / "sound.m4a", click_track(clicks))
    measured = offsets(*read(tmp_path / "video.mp4", tmp_path / "sound.m4a"), clicks, middles)
    assert max(map(abs, measured)) < MAX_OFFSET_SECONDS


def test_a_span_inside_a_long_file(tmp_path):
    """As in HDTF: cut by seeking."""
    clicks, middles = film(tmp_path / "clip.mp4", stamps(30000 / 1001), rate=44100)
    inside = (clicks > 4.2) & (clicks < 9.5)
    measured = read(tmp_path / "clip.mp4", tmp_path / "clip.mp4", 4.0, 10.0)
    assert max(map(abs, offsets(*measured, clicks[inside] - 4, middles[inside] - 4))) < MAX_OFFSET_SECONDS


def test_the_whole_way_into_the_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(track, "FaceTracker", SquareTracker)
    for module in (track, clip):
        monkeypatch.setattr(module, "networks", lambda landmarks: (None, None, None))
    clicks, middles = film(tmp_path / "clip.mp4", stamps(30), rate=48000, stereo=True)
    settings = SETTINGS.model_copy(update={"max_seconds": 60.0, "cut_brightness": 255.0})
    sample = preprocess_clip(row(), tmp_path, settings)
    bright = sample.frames()[:, 2:8, 2:8].mean(axis=(1, 2, 3)) > 105
    assert max(map(abs, offsets(bright, sample.audio(), clicks, middles))) < MAX_OFFSET_SECONDS


def test_time_stamps_in_whole_milliseconds_tear_no_holes_into_sound(tmp_path):
    tone = np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE).astype(np.float32) * 0.5
    frames = [np.zeros((32, 32, 3), np.uint8)] * 75
    write_av(tmp_path / "tone.mkv", frames, np.arange(75) / 25, tone, rate=44100, sound_codec="pcm_s16le")
    heard = read_audio(tmp_path / "tone.mkv", RATE)[RATE : 2 * RATE]
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(RATE))) ** 2
    assert spectrum[430:451].sum() / spectrum.sum() > 0.9999
