"""HDTF's layout: one landscape video per talk and fifteen annotation files as odd as the published."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dicetalk.config import SyntheticHdtf
from dicetalk.labels import NEUTRAL
from dicetalk.synthetic.expression import FaceState
from dicetalk.synthetic.geometry import View
from dicetalk.synthetic.identity import Identity, sample_identity
from dicetalk.synthetic.motion import compose, idle_motion
from dicetalk.synthetic.performance import Performance, perform
from dicetalk.synthetic.recording import write_mp4
from dicetalk.synthetic.render import view_box
from dicetalk.synthetic.sentences import SENTENCES
from dicetalk.synthetic.speech import SAMPLE_RATE_HZ

SETS = ("RD", "WDA", "WRA")
FIRST_NAMES = (
    "Alba",
    "Bruno",
    "Clara",
    "Dario",
    "Elsa",
    "Felix",
    "Greta",
    "Hugo",
    "Irma",
    "Jonas",
    "Karla",
    "Luis",
)
LAST_NAMES = ("Ashdown", "Birchal", "Corvane", "Dunmere", "Elverton", "Farrow", "Glenholt")
PAUSE_SECONDS = 1  # before, between and after the annotated ranges
MILD = (("happy", 1), ("sad", 1), ("surprised", 1), ("angry", 1))
HEAD_PER_FACE = 1.5  # HDTF crops whole heads, not faces
CROP_RATIOS = (0.9, 1.0, 1.1, 1.2)
TALK_SENTENCES = 4

Crop = tuple[float, float, float, float]  # left, top, side, ratio; pixels of the reference resolution


@dataclass(frozen=True)
class HdtfVideo:
    """One talk to write."""

    subset: str
    name: str
    number: int
    ranges: tuple[tuple[int, int], ...]  # whole seconds
    height_px: int
    reference_height_px: int
    fps: float
    seed: int


def plan_videos(settings: SyntheticHdtf, seed: int) -> list[HdtfVideo]:
    """Decide names, time ranges and reference heights of all videos.

    Every fourth video is annotated for twice its height: HDTF's boxes belong to the resolution its authors
    had, which need not be the downloaded one.
    """
    length = math.ceil(settings.clip_seconds)
    videos = []
    for number in range(settings.num_videos):
        subset = SETS[number % len(SETS)]
        name = FIRST_NAMES[number % len(FIRST_NAMES)] + LAST_NAMES[number % len(LAST_NAMES)]
        name = f"Radio{number // len(SETS)}" if subset == "RD" else f"{name}{number // 84 or ''}"
        starts = [PAUSE_SECONDS + k * (length + PAUSE_SECONDS) for k in range(1 + number % 2)]
        reference = settings.height_px * (2 if number % 4 == 3 else 1)
        ranges = tuple((start, start + length) for start in starts)
        videos.append(
            HdtfVideo(subset, name, number, ranges, settings.height_px, reference, settings.fps, seed)
        )
    return videos


def write_hdtf_video(video: HdtfVideo, root: Path) -> list[Crop]:
    """Write one talk with sound and return the crop of each annotated range."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng([video.seed, 4, video.number])
    person = video.name if video.subset == "RD" else video.name.rstrip("0123456789")  # RD numbers strangers
    identity = sample_identity(np.random.default_rng([video.seed, 5, zlib.crc32(person.encode())]))
    width = 2 * round(video.height_px * 8 / 9)
    height = video.height_px
    view = View(
        width, height, rng.uniform(0.2, 0.24) * height, rng.uniform(0.38, 0.62) * width, 0.47 * height
    )
    mood = MILD[rng.integers(len(MILD))] if rng.random() < 0.5 else (NEUTRAL, 1)
    texts = [" ".join(rng.choice(SENTENCES, TALK_SENTENCES, replace=False)) for _ in video.ranges]
    takes, crops = [_silence(identity, video, rng)], []
    for text, (start, end) in zip(texts, video.ranges, strict=True):
        take = perform(identity, *mood, text, end - start, video.fps, rng)
        crops.append(_crop(take, view, video.reference_height_px / height, float(rng.choice(CROP_RATIOS))))
        takes += [take, _silence(identity, video, rng)]
    states = [state for take in takes for state in take.states]
    whole = Performance(identity, states, np.concatenate([take.samples for take in takes]))
    path = root / "videos" / f"{video.subset}_{video.name}.mp4"
    write_mp4(path, whole.frames(view), video.fps, whole.samples)
    return crops


def write_annotations(root: Path, videos: list[tuple[HdtfVideo, list[Crop]]]) -> None:
    """Write the fifteen text files.

    Like the published ones they have a byte order mark (WDA_video_url), trailing blanks (WRA_annotion_time),
    last lines without a newline, a URL without times (RD), a video that is gone (WDA) and a range without a
    crop (WRA).
    """
    for subset in SETS:
        mine = [(video, crops) for video, crops in videos if video.subset == subset]
        urls = [f"{video.name} https://example.org/watch?v={subset}{video.number:04d}" for video, _ in mine]
        heights = [f"{video.name}.mp4 {video.reference_height_px}" for video, _ in mine]
        times = [f"{video.name}.mp4 {' '.join(map(_clock_range, video.ranges))}" for video, _ in mine]
        boxes, ratios = [], []
        for video, crops in mine:
            for index, (left, top, side, ratio) in enumerate(crops):
                boxes.append(f"{video.name}_{index}.mp4 {left:.0f} {side:.0f} {top:.0f} {side:.0f}")
                ratios.append(f"{video.name}_{index}.mp4 {ratio:g}")
        if subset == "RD":
            urls.append("RadioSilence https://example.org/watch?v=RD9999&t=6s")
        if subset == "WDA":
            urls.append("NadiaVanished https://example.org/watch?v=WDA9999")
            heights.append("NadiaVanished.mp4 720")
            times.append("NadiaVanished.mp4 00:05-00:20")
            boxes.append("NadiaVanished_0.mp4 420 400 80 400")
            ratios.append("NadiaVanished_0.mp4 1")
        if subset == "WRA" and len(boxes) > 2:
            boxes, ratios = boxes[:-1], ratios[:-1]
        bom, blanks = "\ufeff" if subset == "WDA" else "", "  " if subset == "WRA" else ""
        _write(root / f"{subset}_video_url.txt", bom + "\n".join(urls) + "\n")
        _write(root / f"{subset}_resolution.txt", "\n".join(heights) + ("" if subset == "RD" else "\n"))
        _write(root / f"{subset}_annotion_time.txt", "".join(f"{line}{blanks}\n" for line in times))
        _write(root / f"{subset}_crop_wh.txt", "\n".join(boxes) + ("" if subset == "WDA" else "\n"))
        _write(root / f"{subset}_crop_ratio.txt", "\n".join(ratios) + ("" if subset == "WRA" else "\n"))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _clock_range(span: tuple[int, int]) -> str:
    return "-".join(f"{seconds // 60:02d}:{seconds % 60:02d}" for seconds in span)


def _silence(identity: Identity, video: HdtfVideo, rng: np.random.Generator) -> Performance:
    num_frames = round(PAUSE_SECONDS * video.fps)
    states = compose(FaceState(), idle_motion(rng, num_frames, video.fps))
    return Performance(identity, states, np.zeros(PAUSE_SECONDS * SAMPLE_RATE_HZ, np.float32))


def _crop(take: Performance, view: View, scale: float, ratio: float) -> Crop:
    """Return the square around all heads of a take, enlarged by `ratio` but inside the picture."""
    boxes = np.array([view_box(take.identity, state, view) for state in take.states])
    corner, far = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
    center = (corner + far) / 2 - (0, 0.1 * boxes[:, 2].mean())
    side = min(float((far - corner).max()) * HEAD_PER_FACE * ratio, view.height)
    left, top = np.clip(center - side / 2, 0, (view.width - side, view.height - side))
    return float(left) * scale, float(top) * scale, side * scale, ratio
