"""Writing the mp4 files we publish: H.264 picture, AAC sound, the same bytes for the same input."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_path

METADATA_KEYS = ("title", "artist", "comment", "description", "copyright")


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: float,
    audio: np.ndarray | None = None,
    sample_rate_hz: int | None = None,
    metadata: dict[str, str] | None = None,
    crf: float = 18,
    pixel_format: Literal["yuv420p", "yuv444p"] = "yuv420p",
    preset: str = "medium",
) -> None:
    """Write H.264 (+ AAC) mp4 that starts playing before it is fully loaded; equal input gives equal bytes.

    Args:
        path: written under another name first; its folder is created.
        frames: RGB uint8 `(height, width, 3)`, all of one size, consumed one at a time. An odd width or
            height is made even by repeating the last column or row, because 4:2:0 video needs it.
        fps: frame rate.
        audio: mono float32 `(samples,)` in [-1, 1], written whole.
        sample_rate_hz: of `audio`.
        metadata: container tags, of `title`, `artist`, `comment`, `description`, `copyright`.
        crf: x264 quality, lower is better; 0 is lossless but for the colour conversion.
        pixel_format: `yuv420p` plays everywhere; `yuv444p` keeps colour at full resolution.
        preset: of x264: what it may cost to make the file small.

    Raises:
        DicetalkError: for no frames, frames of unequal shape or type, non-finite sound or an unknown tag.
    """
    if unknown := set(metadata or {}) - set(METADATA_KEYS):
        raise DicetalkError(f"mp4 cannot store the tags {sorted(unknown)}; it has {METADATA_KEYS}.")
    if (audio is None) != (sample_rate_hz is None):
        raise DicetalkError("write_video needs both audio and sample_rate_hz, or neither.")
    if audio is not None and not np.isfinite(audio).all():
        raise DicetalkError(f"Refusing to write non-finite sound to {path}.")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise DicetalkError(f"No frames to write to {path}.")
    with atomic_path(Path(path)) as temporary:
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(str(temporary), "w", format="mp4", options=options) as container:
            container.metadata.update(metadata or {})
            converter = VideoReformatter()  # kept: setting one up costs more than converting a small frame
            video = _add_video(container, first.shape, fps, crf, pixel_format, preset)
            sound = _Sound(container, audio, sample_rate_hz) if audio is not None and sample_rate_hz else None
            for index, picture in enumerate(chain([first], frames)):
                _check_picture(picture, first.shape, f"{path}: frame {index}")
                frame = converter.reformat(
                    av.VideoFrame.from_ndarray(_even(picture), format="rgb24"),
                    format=pixel_format,
                    dst_colorspace=Colorspace.ITU709,
                    dst_color_range=ColorRange.MPEG,
                    threads=1,
                )
                frame.pts = index
                container.mux(video.encode(frame))
                if sound is not None:  # interleaved, so that neither stream is held in memory
                    container.mux(sound.encode((index + 1) / fps))
            container.mux(video.encode(None))
            if sound is not None:
                container.mux(sound.finish())


def _add_video(
    container: av.container.OutputContainer,
    shape: tuple[int, ...],
    fps: float,
    crf: float,
    pixel_format: str,
    preset: str,
) -> av.VideoStream:
    height, width = shape[:2]
    # Same bytes for same frames: x264's output depends on its number of threads, macroblock trees on timing.
    options = {"crf": str(crf), "preset": preset, "threads": "1", "mbtree": "0", "flags": "+bitexact"}
    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
    stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, pixel_format
    context = stream.codec_context
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return stream


def _check_picture(picture: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    if picture.dtype != np.uint8 or picture.shape != shape or picture.ndim != 3 or picture.shape[2] != 3:
        raise DicetalkError(f"{name} is {picture.dtype} {picture.shape}; expected uint8 RGB {shape}.")


def _even(picture: np.ndarray) -> np.ndarray:
    """Repeat the last row and column of a picture of odd size."""
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(picture)


class _Sound:
    """An AAC stream and the samples still to be written to it."""

    def __init__(self, container: av.container.OutputContainer, samples: np.ndarray, sample_rate_hz: int):
        self.stream = container.add_stream(
            "aac", rate=sample_rate_hz, layout="mono", options={"flags": "+bitexact"}
        )
        self.stream.bit_rate = 128_000
        self.samples, self.sample_rate_hz, self.position = samples, sample_rate_hz, 0

    def encode(self, end_seconds: float) -> list[av.Packet]:
        """Return packets of the samples up to a time."""
        start, self.position = self.position, min(len(self.samples), round(end_seconds * self.sample_rate_hz))
        piece = self.samples[start : self.position]
        if not len(piece):
            return []
        frame = av.AudioFrame.from_ndarray(piece[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = self.sample_rate_hz, start
        return self.stream.encode(frame)

    def finish(self) -> list[av.Packet]:
        """Return packets of all the rest."""
        rest = self.encode(len(self.samples) / self.sample_rate_hz)
        return rest + self.stream.encode(None)
