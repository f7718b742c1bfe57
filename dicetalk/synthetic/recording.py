"""Media files of the corpora, stored as the real ones are, quickly, and with the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter
from scipy.signal import resample_poly

from dicetalk.files import atomic_path
from dicetalk.synthetic.speech import SAMPLE_RATE_HZ

SOUND_RATE_HZ = 48000
BIT_EXACT = {"fflags": "+bitexact"}
# x264's output depends on the number of threads, and its macroblock tree on uninitialised memory.
X264 = {"preset": "veryfast", "crf": "18", "threads": "1", "mbtree": "0", "flags": "+bitexact"}
AAC = {"aac_coder": "fast", "flags": "+bitexact"}


def write_mp4(
    path: Path, frames: Iterable[np.ndarray], fps: float, samples: np.ndarray | None = None
) -> None:
    """Write uint8 RGB frames (height, width, 3) of even size as H.264, with 16 kHz mono sound when given."""
    with (
        atomic_path(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options=BIT_EXACT) as container,
    ):
        video = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=X264)
        video.pix_fmt = "yuv420p"
        sound = None if samples is None else _sound_stream(container)
        convert = VideoReformatter()
        for index, picture in enumerate(frames):
            if index == 0:
                video.height, video.width = picture.shape[:2]
            rgb = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = convert.reformat(rgb, format="yuv420p", dst_colorspace=Colorspace.ITU601)
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None and samples is not None:
            _encode_sound(container, sound, samples)


def write_m4a(path: Path, samples: np.ndarray) -> None:
    """Write 16 kHz mono sound (num_samples,) in [-1, 1] as 48 kHz stereo AAC, MEAD's format."""
    with (
        atomic_path(path) as temporary,
        av.open(str(temporary), "w", format="ipod", options=BIT_EXACT) as container,
    ):
        _encode_sound(container, _sound_stream(container), samples)


def _sound_stream(container: av.container.OutputContainer) -> av.AudioStream:
    stream = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="stereo", options=AAC)
    stream.bit_rate = 96_000
    return stream


def _encode_sound(
    container: av.container.OutputContainer, stream: av.AudioStream, samples: np.ndarray
) -> None:
    upsampled = resample_poly(samples, SOUND_RATE_HZ // SAMPLE_RATE_HZ, 1).clip(-1, 1).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(np.stack([upsampled, upsampled]), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts = SOUND_RATE_HZ, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
