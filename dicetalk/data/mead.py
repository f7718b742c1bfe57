"""MEAD on disk.

`<ID>/video/<view>/<emotion>/level_<k>/<NNN>.mp4` and `<ID>/audio/<emotion>/level_<k>/<NNN>.m4a`.

What the real thing does and this reader takes in its stride: an extra folder from split downloads
(`<ID>/video-001/video/...`), gaps in the sentence numbers, clips without sound, missing views, neutral at
level 1 only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from dicetalk.data.index import make_table
from dicetalk.errors import DicetalkError
from dicetalk.labels import EMOTIONS, levels_of
from dicetalk.progress import log

IDENTITY = re.compile(r"[MW]\d{3}")
CLIP = re.compile(r"(\d{3})\.(mp4|m4a)")
LAYOUT = "<ID>/video/<view>/<emotion>/level_<k>/<NNN>.mp4"


def index_mead(root: Path, views: Iterable[str] = ("front",)) -> pd.DataFrame:
    """Return one row per clip of the given views; `audio_path` is missing where MEAD has no sound file.

    Raises:
        DicetalkError: when nothing is found, archives are not unpacked, or a clip exists twice.
    """
    root, views = Path(root), list(views)
    people = sorted(
        entry.name for entry in os.scandir(root) if entry.is_dir() and IDENTITY.fullmatch(entry.name)
    )
    if packed := [name for name in people if not _media_folders(root, name, "video")]:
        raise DicetalkError(
            f"{', '.join(packed)} in {root} have no video folder. Unpack the downloads first, for example: "
            f"for d in {root}/*/; do tar -xf $d/video.tar -C $d; tar -xf $d/audio.tar -C $d; done"
        )
    table = make_table(record for name in people for record in _person(root, name, views))
    if table.empty:
        raise DicetalkError(f"{root} holds no clip of the form {LAYOUT} for the views {', '.join(views)}.")
    if (repeated := table["clip_id"].duplicated()).any():
        raise DicetalkError(
            f"{root}: {table['clip_id'][repeated].iloc[0]} exists in two folders; remove one."
        )
    return table


def _media_folders(root: Path, person: str, kind: str) -> list[str]:
    """Return the folders, relative to the root, that hold a person's `video` or `audio`."""
    folders = []
    for entry in sorted(os.scandir(root / person), key=lambda entry: entry.name):
        if entry.is_dir() and (entry.name == kind or entry.name.startswith(f"{kind}-")):
            nested = f"{person}/{entry.name}/{kind}"
            folders.append(nested if (root / nested).is_dir() else f"{person}/{entry.name}")
    return folders


def _person(root: Path, person: str, views: list[str]) -> Iterator[dict[str, Any]]:
    sounds: dict[tuple, str] = {}
    for folder in _media_folders(root, person, "audio"):
        sounds |= {tuple(key): path for *key, path in _clips(root, folder, "m4a")}
    for view in views:
        found = 0
        for folder in _media_folders(root, person, "video"):
            for emotion, level, sentence, path in _clips(root, f"{folder}/{view}", "mp4"):
                found += 1
                yield {
                    "clip_id": f"{person}_{view}_{emotion}_{level}_{sentence}",
                    "dataset": "mead",
                    "identity": person,
                    "emotion": emotion,
                    "level": level,
                    "sentence": sentence,
                    "view": view,
                    "video_path": path,
                    "audio_path": sounds.get((emotion, level, sentence)),
                }
        if not found:
            log(f"mead: {person} has no clip of the view {view}")


def _clips(root: Path, folder: str, suffix: str) -> Iterator[tuple[str, int, str, str]]:
    """Yield emotion, level, sentence number and relative path of every media file below a folder."""
    for emotion in EMOTIONS:
        for level in levels_of(emotion):
            place = f"{folder}/{emotion}/level_{level}"
            try:
                names = sorted(entry.name for entry in os.scandir(root / place))
            except FileNotFoundError:
                continue
            for name in names:
                match = CLIP.fullmatch(name)
                if match and match[2] == suffix:
                    yield emotion, level, match[1], f"{place}/{name}"
