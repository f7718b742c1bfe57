"""The videos of the systems under study: matched by file name, checked, and chosen evenly over emotions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dicetalk.data.media import probe
from dicetalk.data.suffixes import VIDEO_SUFFIXES
from dicetalk.errors import DicetalkError
from dicetalk.labels import check_emotion

MIN_SECONDS = 0.5
MAX_FPS = 120


@dataclass(frozen=True)
class Clip:
    """One thing said, as every system made it.

    Attributes:
        name: file name without its ending, the same for all systems.
        emotion: the wanted emotion, one of `labels.EMOTIONS`, if it is known.
        videos: system -> its file.
        seconds: how much of each is shown, the length of the shortest.
    """

    name: str
    emotion: str | None
    videos: dict[str, Path]
    seconds: float


def find_clips(
    folders: Mapping[str, Path], labels: Mapping[str, str] | None
) -> tuple[list[Clip], dict[str, str]]:
    """Match the videos of all systems and look into each.

    Args:
        folders: system -> folder of its videos.
        labels: clip name -> emotion; `None` when no emotion is known.

    Returns:
        The usable clips by name, and for every other name why it is not used.

    Raises:
        DicetalkError: for a single system, a folder with two videos of one name, or no usable clip.
    """
    if len(folders) < 2:
        raise DicetalkError(f"A study compares at least two systems, found {', '.join(folders) or 'none'}.")
    videos = {system: _videos(folder) for system, folder in folders.items()}
    clips, left_out = [], {}
    for name in sorted(set().union(*videos.values())):
        found = {system: paths[name] for system, paths in videos.items() if name in paths}
        try:
            clips.append(_clip(name, found, list(videos), labels))
        except DicetalkError as error:
            left_out[name] = str(error)
    if not clips:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:3])
        raise DicetalkError(
            f"No video is usable for every system. {reasons or 'The folders hold no videos.'} Each needs"
            f" videos of the same names, with sound ({', '.join(sorted(VIDEO_SUFFIXES))})."
        )
    return clips, left_out


def read_labels(path: Path) -> dict[str, str]:
    """Read the wanted emotion of each clip from a table with the columns `clip_id` and `emotion`.

    The manifest of the `generate` stage is such a table; a CSV works as well.

    Raises:
        DicetalkError: when a column is missing, an emotion unknown, or a clip has two.
    """
    try:
        table = (
            pd.read_parquet(path)
            if path.suffix == ".parquet"
            else pd.read_csv(path, dtype=str, keep_default_na=False)
        )
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise DicetalkError(f"{path} cannot be read as a table: {error}") from None
    if missing := {"clip_id", "emotion"} - set(table.columns):
        raise DicetalkError(f"{path} has the columns {list(table.columns)}; {sorted(missing)} is missing.")
    labels: dict[str, str] = {}
    for name, emotion in table[["clip_id", "emotion"]].itertuples(index=False):
        try:
            check_emotion(emotion)
        except DicetalkError as error:
            raise DicetalkError(f"{path}, clip {name}: {error}") from None
        if labels.setdefault(name, emotion) != emotion:
            raise DicetalkError(f"{path}: clip {name} is both {labels[name]} and {emotion}.")
    return labels


def choose_clips(clips: list[Clip], count: int, rng: np.random.Generator) -> list[Clip]:
    """Draw clips so that the numbers of clips per emotion differ as little as the supply allows."""
    by_emotion: dict[str, list[Clip]] = defaultdict(list)
    for index in rng.permutation(len(clips)):
        by_emotion[clips[index].emotion or ""].append(clips[index])
    emotions = [sorted(by_emotion)[index] for index in rng.permutation(len(by_emotion))]
    chosen: list[Clip] = []
    while len(chosen) < min(count, len(clips)):
        for emotion in emotions:
            if by_emotion[emotion] and len(chosen) < count:
                chosen.append(by_emotion[emotion].pop())
    return chosen


def _videos(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    if not folder.is_dir():
        raise DicetalkError(f"{folder} is not a folder.")
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            if path.stem in found:
                raise DicetalkError(f"{folder} has two videos named {path.stem}: keep one of them.")
            found[path.stem] = path
    return found


def _clip(name: str, videos: dict[str, Path], systems: list[str], labels: Mapping[str, str] | None) -> Clip:
    if missing := [system for system in systems if system not in videos]:
        raise DicetalkError(f"no video of {', '.join(missing)}")
    if labels is not None and name not in labels:
        raise DicetalkError("no emotion in the labels")
    seconds = min(_usable_seconds(path) for path in videos.values())
    return Clip(name, labels[name] if labels is not None else None, videos, seconds)


def _usable_seconds(path: Path) -> float:
    info = probe(path)
    if not info.has_video or not info.has_audio:
        raise DicetalkError(f"{path} has no {'sound' if info.has_video else 'picture'}")
    if not 1 <= info.fps <= MAX_FPS:
        raise DicetalkError(f"{path} has {float(info.fps):g} frames a second, expected 1 to {MAX_FPS}")
    if info.duration_seconds < MIN_SECONDS:
        raise DicetalkError(f"{path} lasts {info.duration_seconds:.2f} s, expected at least {MIN_SECONDS} s")
    return info.duration_seconds
