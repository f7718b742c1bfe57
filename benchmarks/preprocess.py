"""Where preprocessing spends its time, per frame and phase, beside what nobody can do without.

    python -m benchmarks.preprocess --media FOLDER [--size-px 512] [--seconds 4] [--scaling 8] [--out FILE]

Times are processor seconds of one process, so other programs on the machine disturb them little. The unit
is one pass of decoding; the floor of any such program is that plus one pass of BlazeFace per frame.
`--scaling N` also measures, by the clock, N copies of the first clip with one and with two processes: for a
machine with two idle cores.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2

from dicetalk.config import Preprocess, PreprocessCompute, load_params
from dicetalk.data import clip, track, worker
from dicetalk.data.detect import FaceDetector
from dicetalk.data.folder import index_folder
from dicetalk.data.landmarks import FaceMesh
from dicetalk.data.media import read_video
from dicetalk.data.preprocess import _plain_rows, preprocess_folder
from dicetalk.data.reasons import Rejected
from dicetalk.files import write_json

PHASES = ("decode", "detect", "landmark", "encode", "write", "rest")


class Stopwatch:
    """Processor seconds by phase; a phase inside another one counts for itself only."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._open: list[str] = ["rest"]
        self._since = time.process_time()

    def _switch(self) -> None:
        now = time.process_time()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def enter(self, phase: str) -> None:
        self._switch()
        self._open.append(phase)

    def leave(self) -> None:
        self._switch()
        self._open.pop()

    def wrap(self, owner: object, name: str, phase: str) -> None:
        """Count the time of a function, or of every step of a generator, for a phase."""
        function: Callable = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args, **kwargs):
            self.enter(phase)
            try:
                result = function(*args, **kwargs)
            finally:
                self.leave()
            return self._steps(result, phase) if isinstance(result, Iterator) else result

        setattr(owner, name, timed)

    def _steps(self, items: Iterator, phase: str) -> Iterator:
        while True:
            self.enter(phase)
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.leave()
            yield item


def floor_seconds(video: Path, settings: Preprocess) -> tuple[float, float, int]:
    """Return processor seconds of decoding, and of one BlazeFace pass per frame; and the number of frames."""
    detector, decode, detect, count = FaceDetector(), 0.0, 0.0, 0
    frames = read_video(video, settings.fps, 0.0, settings.max_seconds)
    while True:
        start = time.process_time()
        frame = next(frames, None)
        decode += time.process_time() - start
        if frame is None:
            return decode, detect, count
        start = time.process_time()
        detector.detect_in(frame, 0, 0, max(frame.shape[:2]))
        detect += time.process_time() - start
        count += 1


def measure(row: dict, root: Path, settings: Preprocess, watch: Stopwatch) -> dict | None:
    """Return the costs of one clip, or None when it is rejected."""
    decode, detect, count = floor_seconds(root / row["video_path"], settings)
    watch.seconds.clear()
    watch._switch()
    watch.seconds.clear()
    outcome = clip.preprocess_clip(row, root, settings)
    if isinstance(outcome, Rejected):
        print(f"{row['clip_id']}: {outcome.code}")
        return None
    with tempfile.TemporaryDirectory() as folder:
        worker.write_shard(Path(folder) / "one.tar", iter([outcome]))
    watch._switch()
    total = sum(watch.seconds.values())
    pixels = count * settings.size_px**2
    return {
        "clip": row["clip_id"],
        "frames": count,
        "frames_per_second_per_core": round(count / total, 1),
        "milliseconds_per_frame": {phase: round(1000 * watch.seconds[phase] / count, 2) for phase in PHASES},
        "decoding_milliseconds_per_frame": round(1000 * decode / count, 2),
        "blazeface_milliseconds_per_frame": round(1000 * detect / count, 2),
        "ratio_to_decoding": round(total / decode, 2),
        "ratio_to_decoding_and_blazeface": round(total / (decode + detect), 2),
        "bytes_per_pixel": round(sum(map(len, outcome.members.values())) / pixels, 3),
    }


def scaling(video: Path, copies: int, settings: Preprocess) -> float:
    """Return how many times faster two processes are than one, by the clock."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        raw.mkdir()
        for number in range(copies):
            shutil.copy(video, raw / f"{number}{video.suffix}")
        for workers in (1, 2):
            started = time.monotonic()
            output = Path(folder) / str(workers)
            compute = PreprocessCompute(scheduler="local", workers=workers, clip_timeout_seconds=600.0)
            preprocess_folder(raw, output, settings, compute)
            seconds.append(time.monotonic() - started)
    return seconds[0] / seconds[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--params", type=Path, default=Path("profiles/paper.yaml"))
    parser.add_argument("--size-px", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--scaling", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    changes = {
        "size_px": options.size_px,
        "max_seconds": options.seconds,
        "min_face_px": 32,
    }
    settings = load_params(options.params).preprocess.model_copy(update=changes)
    cv2.setNumThreads(1)
    rows = sorted(_plain_rows(index_folder(options.media)), key=lambda row: row["clip_id"])

    watch = Stopwatch()
    track.networks(settings.landmarks)  # loaded once per process, no cost of a clip
    for owner, name, phase in (
        (track, "read_video", "decode"),
        (clip, "read_video", "decode"),
        (clip, "read_audio", "decode"),
        (clip, "probe", "decode"),
        (FaceDetector, "detect_in", "detect"),
        (FaceMesh, "landmarks", "landmark"),
        (clip, "write_video", "encode"),
        (worker, "write_shard", "write"),
    ):
        watch.wrap(owner, name, phase)
    clips = [found for row in rows if (found := measure(row, options.media, settings, watch))]
    report: dict = {"size_px": settings.size_px, "clips": clips}
    for found in clips:
        print(found)
    if options.scaling:
        first = options.media / rows[0]["video_path"]
        report["speed_of_two_processes"] = round(scaling(first, options.scaling, settings), 2)
        print(f"two processes: {report['speed_of_two_processes']} x one")
    if options.out:
        write_json(options.out, report)


if __name__ == "__main__":
    main()
