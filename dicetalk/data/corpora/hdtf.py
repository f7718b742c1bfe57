"""HDTF on disk: its annotation files in the root, downloaded videos as `videos/<SET>_<Name>.mp4`.

The annotation files are read as published, with their byte order mark, trailing blanks and missing last
newline. Boxes belong to the height in `<SET>_resolution.txt` and are scaled to the video at hand.
`<SET>_crop_ratio.txt` is not needed: the published windows are already enlarged by it. Clips without a
window are kept; the face is sought in the whole picture.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import PositiveFloat

from dicetalk.config import CorpusIndex
from dicetalk.data.corpora.base import Corpus
from dicetalk.data.index_table import make_table
from dicetalk.data.media import probe
from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_path
from dicetalk.progress import log

TIME_RANGE = re.compile(r"(\d+):(\d\d)-(\d+):(\d\d)")
NUMBERED_SET = "RD"  # its names are Radio0, Radio1, ...: the number is all that tells the speakers apart


class HdtfIndex(CorpusIndex):
    """Which part of HDTF is used."""

    sets: list[Literal["RD", "WDA", "WRA"]]
    piece_seconds: (
        PositiveFloat  # annotated ranges last minutes and are cut into equal pieces, this long at most
    )


class Hdtf(Corpus[HdtfIndex]):
    """HDTF, a part of the paper's regular data."""

    section = HdtfIndex
    source = "annotations and addresses of the videos: https://github.com/MRzzm/HDTF"
    licence = "CC BY 4.0 for the list; the videos are their makers'"

    def read(self, notes: Path) -> pd.DataFrame:
        """Return one row per annotated range of every video that is present, long ranges in pieces.

        Args:
            notes: folder of `<name>-missing-videos.csv`, the videos to download with their addresses.

        Raises:
            DicetalkError: when an annotation file is missing or has another form, or no video is present.
        """
        root, missing_csv = Path(self.settings.root), notes / f"{self.name}-missing-videos.csv"
        records: list[dict[str, Any]] = []
        missing: list[tuple[str, str]] = []
        for subset in self.settings.sets:
            urls = {name: url for name, url, *_ in _lines(root, subset, "video_url", 2)}
            heights = {name: int(height) for name, height, *_ in _lines(root, subset, "resolution", 2)}
            windows = {name: tuple(map(int, words)) for name, *words in _lines(root, subset, "crop_wh", 5)}
            for name, ranges in _time_ranges(root, subset):
                video = f"videos/{subset}_{name}.mp4"
                if not (root / video).is_file():
                    missing.append((video, urls.get(name, "")))
                    continue
                published = [windows.get(f"{name}_{number}") for number in range(len(ranges))]
                crops = _scaled(root / video, heights.get(name, 0), published)
                for number, (span, crop) in enumerate(zip(ranges, crops, strict=True)):
                    records.extend(self._pieces(subset, name, number, video, span, crop))
        with (
            atomic_path(missing_csv) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as stream,
        ):
            csv.writer(stream).writerows([("video_path", "url"), *missing])
        if missing:
            log(
                f"{self.name}: {len(missing)} annotated videos are not in {root / 'videos'}; "
                f"{missing_csv} lists them"
            )
        if not records:
            raise DicetalkError(
                f"None of HDTF's videos is in {root / 'videos'}; {missing_csv} says where they are."
            )
        return make_table(records)

    def _pieces(
        self,
        subset: str,
        name: str,
        number: int,
        video: str,
        span: tuple[int, int],
        crop: tuple[int, int, int, int] | None,
    ) -> Iterator[dict[str, Any]]:
        """Yield one row per piece of an annotated range."""
        start, end = span
        piece_seconds = self.settings.piece_seconds
        count = math.ceil((end - start) / piece_seconds)
        clip_id = re.sub(r"[^A-Za-z0-9_-]", "-", f"{subset}_{name}_{number:03d}")
        for piece in range(count):
            yield {
                "clip_id": clip_id if count == 1 else f"{clip_id}_{piece:03d}",
                "dataset": self.name,
                "identity": speaker(subset, name),
                "video_path": video,
                "audio_path": video,
                "start_seconds": start + (end - start) * piece / count,
                "end_seconds": start + (end - start) * (piece + 1) / count,
                **dict(zip(("crop_x", "crop_y", "crop_w", "crop_h"), crop or (None,) * 4, strict=True)),
            }


def speaker(subset: str, name: str) -> str:
    """Return who speaks: `JimMcGovern` and `JimMcGovern1` show one person, on one side of the split."""
    return f"{subset}_{name}" if subset == NUMBERED_SET else f"{subset}_{name.rstrip('0123456789')}"


def _lines(root: Path, subset: str, kind: str, least_words: int) -> Iterator[list[str]]:
    path = root / f"{subset}_{kind}.txt"
    if not path.is_file():
        raise DicetalkError(f"{path} does not exist; put HDTF's annotation files into {root}.")
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = line.split()
        if words and len(words) < least_words:
            raise DicetalkError(f"{path}, line {number}: {line!r} has fewer than {least_words} words.")
        if words:
            yield [words[0].removesuffix(".mp4"), *words[1:]]


def _time_ranges(root: Path, subset: str) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    for name, *words in _lines(root, subset, "annotion_time", 2):
        ranges = []
        for word in words:
            match = TIME_RANGE.fullmatch(word)
            if match is None:
                raise DicetalkError(f"{subset}_annotion_time.txt: {word!r} of {name} is not MM:SS-MM:SS.")
            minutes_from, seconds_from, minutes_to, seconds_to = map(int, match.groups())
            ranges.append((60 * minutes_from + seconds_from, 60 * minutes_to + seconds_to))
        yield name, ranges


def _scaled(video: Path, height: int, windows: list[tuple | None]) -> list[tuple[int, int, int, int] | None]:
    """Turn published windows (x, width, y, height at the published frame height) into boxes of this video."""
    if not any(windows):
        return [None] * len(windows)
    try:
        info = probe(video)
    except DicetalkError as error:  # one damaged video stops no index; its clips are rejected later
        log(f"hdtf: {error}")
        return [None] * len(windows)
    scale = info.height / height if height > 0 else 1.0  # one published height is 0
    boxes: list[tuple[int, int, int, int] | None] = []
    for window in windows:
        if window is None:
            boxes.append(None)
            continue
        x, width, y, box_height = (round(value * scale) for value in window)
        if height <= 0 and (x + width > info.width or y + box_height > info.height):
            boxes.append(None)  # so the window was made for a larger frame
            continue
        left, top = max(0, x), max(0, y)
        right, bottom = min(info.width, x + width), min(info.height, y + box_height)
        boxes.append((left, top, right - left, bottom - top) if right > left and bottom > top else None)
    return boxes
