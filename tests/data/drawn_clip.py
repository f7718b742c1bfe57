"""Short clips of a drawn head that the real networks find, in any container and size."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from scipy.signal import resample_poly

RATE = 16000
CLOCK = Fraction(1, 90000)
CLOCKS = {"mpeg4": Fraction(1, 1000), "mpeg2video": Fraction(1, 25)}  # theirs are coarser


@lru_cache(maxsize=4)
def drawn_head(seconds: float = 0.8, size_px: int = 128, fps: float = 25.0) -> tuple[np.ndarray, np.ndarray]:
    """Return frames `(num_frames, size_px, size_px, 3)` of a speaking head, and its speech at 16 kHz."""
    from dicetalk.synthetic.identity import sample_identity
    from dicetalk.synthetic.performance import perform
    from dicetalk.synthetic.render import portrait_view

    identity = sample_identity(np.random.default_rng(5), False)
    text = "The quick brown fox jumps over the lazy dog."
    take = perform(identity, "happy", 2, text, seconds, fps, np.random.default_rng(6))
    return np.stack(list(take.frames(portrait_view(size_px)))), take.samples


def write_av(
    path: Path,
    frames: Sequence[np.ndarray],
    times: Sequence[float],
    samples: np.ndarray | None = None,
    sound_start: float = 0.0,
    rate: int = RATE,
    stereo: bool = False,
    codec: str = "libx264",
    sound_codec: str = "aac",
    options: dict[str, str] | None = None,
) -> None:
    """Write frames at any times, and 16 kHz sound that starts at any time, as recorders do.

    The container is that of the file's suffix.
    """
    with av.open(str(path), "w") as container:
        usual = {"crf": "12", "preset": "superfast"} if codec == "libx264" else {}
        video = container.add_stream(codec, rate=25, options=usual | (options or {}))
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt, video.codec_context.time_base = "yuv420p", CLOCKS.get(codec, CLOCK)
        sound = None
        if samples is not None:
            sound = container.add_stream(sound_codec, rate=rate, layout="stereo" if stereo else "mono")
        for picture, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            base = video.codec_context.time_base
            frame.pts, frame.time_base = round(time / base), base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            wave = resample_poly(samples, rate, RATE).astype(np.float32) if rate != RATE else samples
            frame = av.AudioFrame.from_ndarray(
                np.stack([wave] * (1 + stereo)), format="fltp", layout="stereo" if stereo else "mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = rate, round(sound_start * rate), Fraction(1, rate)
            if sound.codec_context.format.name != "fltp":
                resampler = av.AudioResampler(format=sound.codec_context.format.name, rate=rate)
                pieces = resampler.resample(frame)
            else:
                pieces = [frame]
            for piece in pieces:
                container.mux(sound.encode(piece))
            container.mux(sound.encode(None))


def rotate(path: Path, degrees: int) -> None:
    """Write a display rotation (clockwise) into an mp4, where phones put it: the matrix of `tkhd`."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = [cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30]
    content[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(content)
