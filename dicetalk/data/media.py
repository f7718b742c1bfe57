"""Reading video and sound on one clock with PyAV; nothing calls an `ffmpeg` binary. Writing is in `mp4.py`.

The clock of a file starts at its first video frame (first sound sample in a file without video). Sound that
starts later is preceded by silence and sound that starts earlier is cut, so sample `i` and frame `k` belong
together when `i / sample_rate_hz == k / fps`, whatever start times, encoder priming or variable frame rates
the file has. Interlaced frames are de-interlaced, rotated ones turned upright.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from dicetalk.data.deinterlace import deinterlaced
from dicetalk.data.mp4 import write_video
from dicetalk.errors import DicetalkError

__all__ = ["MediaInfo", "probe", "read_audio", "read_video", "write_video"]

SEEK_SECONDS = 2.0  # decoding this much is cheaper than seeking, and the start of a file needs no key frame
JITTER_SECONDS = 0.005  # Matroska rounds time stamps to 1 ms: so much is no gap between pieces of sound
MAX_LEAD_SECONDS = 0.01
PLAYLISTS = ("concat", "dash", "hls", "imf")


@dataclass(frozen=True)
class MediaInfo:
    """What a media file says about itself.

    Attributes:
        width, height: displayed size in pixels, that is after `rotation`; 0 without video.
        rotation: counter-clockwise degrees by which stored frames are turned for display: 0, 90, 180 or 270.
        fps: average frame rate; 0 without video.
        duration_seconds: of the picture if there is one, else of the sound; 0 when the file does not say.
        num_frames: stored frames by the file's own count; 0 when it does not say.
        audio_start_seconds: time stamp of the first sample; None without sound.
    """

    width: int
    height: int
    rotation: int
    fps: Fraction
    duration_seconds: float
    num_frames: int
    has_video: bool
    has_audio: bool
    sample_rate_hz: int
    audio_start_seconds: float | None


def probe(path: Path) -> MediaInfo:
    """Describe a media file; decodes one frame to learn its orientation.

    Raises:
        DicetalkError: when the file cannot be opened or its first frame cannot be decoded.
    """
    with _open(path) as container:
        video, audio = _video_stream(container), _audio_stream(container)
        width = height = rotation = 0
        if video is not None:
            first = next(container.decode(video), None)
            if first is None:
                raise DicetalkError(f"{path}: the video stream has no decodable frame.")
            rotation = _rotation(first)
            width, height = (first.height, first.width) if rotation % 180 else (first.width, first.height)
        main = video or audio
        duration = 0.0
        if main is not None and main.duration is not None and main.time_base is not None:
            duration = float(main.duration * main.time_base)
        elif container.duration is not None:
            duration = container.duration / av.time_base
        return MediaInfo(
            width=width,
            height=height,
            rotation=rotation,
            fps=Fraction(video.average_rate or 0) if video is not None else Fraction(0),
            duration_seconds=duration,
            num_frames=video.frames if video is not None else 0,
            has_video=video is not None,
            has_audio=audio is not None,
            sample_rate_hz=audio.sample_rate if audio is not None else 0,
            audio_start_seconds=_start_seconds(audio) if audio is not None else None,
        )


def read_video(
    path: Path | BinaryIO, fps: float = 25.0, start_seconds: float = 0.0, end_seconds: float | None = None
) -> Iterator[np.ndarray]:
    """Yield upright RGB frames at a constant rate: the stored frame nearest to `start_seconds + k / fps`.

    Frames are decoded as they are asked for. They cover `[start_seconds, end_seconds)`; a missing end means
    the end of the last stored frame.

    A time stamp can be read as the moment a frame shows or as the moment from which it is shown, and the two
    readings can disagree about which stored frame is nearest. The choice here lies halfway between them:
    under either one, changing the rate shifts the picture against the sound by at most 10 ms on average, and
    by less under their mean.

    Yields:
        uint8 arrays `(height, width, 3)`.

    Raises:
        DicetalkError: when the file cannot be read, has no video, ends before `start_seconds`, or holds a
            damaged frame or frames of several sizes.
    """
    with _open(path) as container:
        stream = _video_stream(container)
        if stream is None:
            raise DicetalkError(f"{path}: no video stream.")
        stream.codec_context.thread_count = 1  # callers run one process per core
        zero = _start_seconds(stream)
        if start_seconds > SEEK_SECONDS:
            container.seek(int((zero + start_seconds) * av.time_base), backward=True)
        end = float("inf") if end_seconds is None else end_seconds
        converter = VideoReformatter()  # kept: setting one up costs more than converting a small frame
        index, time, lead = 0, -1.0, _lead_seconds(stream, fps)
        held: av.VideoFrame | None = None
        for frame in deinterlaced(container.decode(stream)):
            if frame.time is None:
                raise DicetalkError(f"{path}: a frame has no time stamp.")
            previous, time = time, frame.time - zero
            if held is not None:
                _check_frame(path, held, frame, time, start_seconds)
                boundary = min((previous + time) / 2 - lead, end)
                picture = None
                while (wanted := start_seconds + index / fps) < boundary - 1e-6:
                    picture = _upright(held, converter) if picture is None else picture
                    yield picture
                    index += 1
                if wanted >= end - 1e-6:
                    return
            held = frame
        if held is None:
            raise DicetalkError(f"{path}: the video stream has no decodable frame at {start_seconds} s.")
        last = min(time + _frame_seconds(held, stream), end)
        picture = _upright(held, converter)
        while start_seconds + index / fps < last - 1e-6:
            yield picture
            index += 1
        if index == 0:
            raise DicetalkError(f"{path}: ends at {last:.2f} s, before the start {start_seconds:.2f} s.")


def read_audio(
    path: Path, sample_rate_hz: int = 16000, start_seconds: float = 0.0, end_seconds: float | None = None
) -> np.ndarray:
    """Return mono float32 sound in [-1, 1] on the file's clock.

    Gaps in the file become silence. The result ends with `end_seconds` or the file's last sample, whichever
    comes first.

    Raises:
        DicetalkError: when the file cannot be read or has no sound.
    """
    with _open(path) as container:
        stream = _audio_stream(container)
        if stream is None:
            raise DicetalkError(f"{path}: no audio stream.")
        video = _video_stream(container)
        zero = _start_seconds(video if video is not None else stream)
        rate = stream.sample_rate
        if not rate:
            raise DicetalkError(f"{path}: the audio stream does not say its sample rate.")
        if start_seconds > SEEK_SECONDS:
            container.seek(int((zero + start_seconds - 1.0) * av.time_base), backward=True)
        pieces: list[tuple[int, np.ndarray]] = []
        for frame in container.decode(stream):
            time = (frame.time or 0.0) - zero - start_seconds
            if end_seconds is not None and time > end_seconds - start_seconds:
                break
            position = round(time * rate)
            follow_on = pieces[-1][0] + len(pieces[-1][1]) if pieces else position
            is_jitter = abs(position - follow_on) <= JITTER_SECONDS * rate
            pieces.append((follow_on if is_jitter else position, _mono(frame)))
    signal = _lay_out(pieces)
    if rate != sample_rate_hz:
        signal = _resample(signal, rate, sample_rate_hz)
    if end_seconds is not None:
        num_samples = round((end_seconds - start_seconds) * sample_rate_hz)
        signal = signal[:num_samples]
    return np.clip(signal, -1.0, 1.0)


@contextmanager
def _open(path: Path | BinaryIO) -> Iterator[av.container.InputContainer]:
    """Open a file for reading; every decoding error inside becomes a `DicetalkError` naming the file."""
    try:
        is_path = isinstance(path, (str, Path))
        # Only ever files, even where a name looks like an address or a playlist refers to one.
        options = {"protocol_whitelist": "file"} if is_path else {}
        file = str(path) if is_path else path
        with av.open(file, "r", options=options, metadata_errors="replace") as container:
            if container.format.name in PLAYLISTS:
                raise DicetalkError(f"{path}: is a list of other files.")
            if any(stream.codec_context is None for stream in container.streams):
                raise DicetalkError(f"{path}: a stream has an unknown format.")
            yield container
    except (av.FFmpegError, OSError) as error:
        raise DicetalkError(f"{path}: cannot be read as video or sound: {error}") from error


def _video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """Return the first moving picture; cover art of sound files does not count."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def _audio_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    return next(iter(container.streams.audio), None)


def _start_seconds(stream: av.stream.Stream) -> float:
    return float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0


def _frame_seconds(frame: av.VideoFrame, stream: av.VideoStream) -> float:
    """Return how long a frame is shown: its own duration, else one average frame."""
    if frame.duration and frame.time_base:
        return float(frame.duration * frame.time_base)
    return float(1 / stream.average_rate) if stream.average_rate else 0.0


def _lead_seconds(stream: av.VideoStream, fps: float) -> float:
    """Return how much later than its time stamp an output frame looks: half of what the two readings differ.

    Read as beginnings, stamps lie half a frame before the middle of what is shown: of 1 / fps there, of
    1 / average_rate here.
    """
    if not stream.average_rate:
        return 0.0
    lead = (1 / fps - 1 / float(stream.average_rate)) / 4
    return min(max(lead, -MAX_LEAD_SECONDS), MAX_LEAD_SECONDS)


def _check_frame(
    path: Path | BinaryIO, before: av.VideoFrame, frame: av.VideoFrame, time: float, start_seconds: float
) -> None:
    if frame.is_corrupt and time >= start_seconds:
        raise DicetalkError(f"{path}: the frame at {time:.2f} s is damaged.")
    if (frame.width, frame.height) != (before.width, before.height):
        raise DicetalkError(f"{path}: the frame size changes at {time:.2f} s.")


def _rotation(frame: av.VideoFrame) -> int:
    return round(frame.rotation / 90) * 90 % 360


def _upright(frame: av.VideoFrame, converter: VideoReformatter) -> np.ndarray:
    picture = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    quarter_turns = _rotation(frame) // 90
    return np.ascontiguousarray(np.rot90(picture, quarter_turns)) if quarter_turns else picture


def _mono(frame: av.AudioFrame) -> np.ndarray:
    """Return the mean of the channels as float32 `(samples,)`, integers scaled to [-1, 1]."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / 2.0 ** (8 * samples.itemsize - 1)
    return samples.mean(axis=0, dtype=np.float32)


def _lay_out(pieces: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """Put pieces at their sample positions; what starts before zero is cut, gaps stay silent."""
    length = max((position + len(samples) for position, samples in pieces), default=0)
    signal = np.zeros(max(length, 0), np.float32)
    for position, samples in pieces:
        kept = samples[max(0, -position) :]
        begin = max(0, position)
        signal[begin : begin + len(kept)] = kept
    return signal


def _resample(signal: np.ndarray, rate_hz: int, wanted_rate_hz: int) -> np.ndarray:
    """Resample with FFmpeg's filter, which adds no delay, to `round(len * wanted / rate)` samples."""
    num_samples = round(len(signal) * wanted_rate_hz / rate_hz)
    if not len(signal):
        return signal
    resampler = av.AudioResampler(format="flt", layout="mono", rate=wanted_rate_hz)
    frame = av.AudioFrame.from_ndarray(signal[None], format="flt", layout="mono")
    frame.sample_rate = rate_hz
    parts = [piece.to_ndarray()[0] for piece in [*resampler.resample(frame), *resampler.resample(None)]]
    resampled = np.concatenate(parts)[:num_samples]
    return np.pad(resampled, (0, num_samples - len(resampled)))
