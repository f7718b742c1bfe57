"""Copies of videos that do not tell where they come from, and attention checks made of them.

Every video is decoded and encoded again with the same settings, so that no container, codec, tag or rate of
sound gives its system away, and every browser plays it. Picture size and frame rate stay: they are part
of what a system delivers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from dicetalk.data.media import probe, read_audio, read_video
from dicetalk.data.mp4 import write_video

SAMPLE_RATE_HZ = 48_000
CRF = 12  # finer than the videos of this project are written, so the copy adds no visible loss
NOTE = "Part of a blinded study of generated video; may be synthetic."
MIN_CHECK_WIDTH = 320


def write_blinded(source: Path, target: Path, seconds: float, message: list[str] | None = None) -> None:
    """Write the first `seconds` of a video without a trace of its origin.

    Args:
        source: any video with sound.
        target: the mp4 to write.
        seconds: length of the copy.
        message: lines of text to lay over the second half, for an attention check.

    Raises:
        DicetalkError: when the video cannot be decoded.
    """
    fps = float(probe(source).fps)
    frames = read_video(source, fps, 0.0, seconds)
    if message is not None:
        frames = _with_message(frames, message, start=round(fps * seconds / 2))
    sound = read_audio(source, SAMPLE_RATE_HZ, 0.0, seconds)
    write_video(target, frames, fps, sound, SAMPLE_RATE_HZ, {"comment": NOTE}, CRF)


def _with_message(frames: Iterator[np.ndarray], lines: list[str], start: int) -> Iterator[np.ndarray]:
    """Yield frames, large enough to read on, with a text on the lower half from frame `start` on."""
    for index, frame in enumerate(frames):
        height, width = frame.shape[:2]
        factor = max(1.0, MIN_CHECK_WIDTH / width)
        size = (round(width * factor), round(height * factor))
        picture = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
        if index >= start:
            _write_lines(picture, lines)
        yield picture


def _write_lines(picture: np.ndarray, lines: list[str]) -> None:
    height, width = picture.shape[:2]
    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(width / 240))
    widest = max(cv2.getTextSize(line, font, 1.0, thickness)[0][0] for line in lines)
    scale = 0.9 * width / widest
    line_height = round(1.7 * cv2.getTextSize("A", font, scale, thickness)[0][1])
    top = height - line_height * len(lines) - line_height // 2
    picture[max(top, 0) :] = 20
    for number, line in enumerate(lines):
        place = (round(0.05 * width), top + line_height * (number + 1))
        cv2.putText(picture, line, place, font, scale, (255, 255, 255), thickness, cv2.LINE_AA)
