"""A folder of one's own videos, or of a corpus that has one folder per person, such as VoxCeleb2.

Labels, if any, come from a `clips.csv` in it, with a column `file` (path relative to the folder) and any of
`identity`, `emotion`, `level` and `split`. Files it does not list are used without a label; the file's name,
or the folder that `identity_folder` points at, is their identity.

A corpus may keep sound apart, as VoxCeleb2 does: a video below a folder `mp4` has its sound in the `.m4a` of
the same place below `aac`, if there is one; otherwise in itself.
"""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd

from dicetalk.data.index_table import make_table
from dicetalk.data.suffixes import VIDEO_SUFFIXES
from dicetalk.errors import DicetalkError
from dicetalk.labels import class_index
from dicetalk.progress import log

MAX_ID_LENGTH = 80  # of 100 characters that a name in a tar file may have
LABELS = "clips.csv"


def index_folder(root: Path, dataset: str = "folder", identity_folder: int = 0) -> pd.DataFrame:
    """Return one row per video below a folder.

    Args:
        root: the folder; links to other folders are not followed.
        dataset: what the clips are to be called together.
        identity_folder: how many folders above a file the one is that names the person; 0 takes the file.

    Raises:
        DicetalkError: when there is no video, a file lies too high for `identity_folder`, or `clips.csv` has
            a missing file, an unknown column or label.
    """
    root = Path(root)
    found = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    videos = sorted(path.relative_to(root) for path in found if path.suffix.lower() in VIDEO_SUFFIXES)
    if unspeakable := [path for path in videos if not _is_text(path)]:
        log(f"{len(unspeakable)} file names are not UTF-8 and left out; rename them, e.g. {unspeakable[0]!r}")
        videos = [path for path in videos if _is_text(path)]
    if not videos:
        raise DicetalkError(f"{root} holds no video ({', '.join(sorted(VIDEO_SUFFIXES))}).")
    labels = _read_labels(root / LABELS, {path.as_posix() for path in videos})
    records, used = [], set()
    for path in videos:
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.as_posix().removesuffix(path.suffix)).strip("-")
        clip_id = name = name[-MAX_ID_LENGTH:] or "clip"
        repeat = 1
        while clip_id in used:
            repeat += 1
            clip_id = f"{name}-{repeat}"
        used.add(clip_id)
        file = path.as_posix()
        record = {
            "clip_id": clip_id,
            "dataset": dataset,
            "identity": _identity(root, path, dataset, identity_folder),
            "level": 0,
            "split": "train",
        }
        sound = _sound(root, path).as_posix()
        records.append({**record, "video_path": file, "audio_path": sound, **labels.get(file, {})})
    return make_table(records)


def _identity(root: Path, path: Path, dataset: str, identity_folder: int) -> str:
    if identity_folder == 0:
        return path.stem
    if identity_folder >= len(path.parts):
        raise DicetalkError(
            f"{root / path}: no folder of {root} lies {identity_folder} above it to name the person; "
            f"change index.{dataset}.identity_folder."
        )
    return path.parts[-1 - identity_folder]


def _is_text(path: Path) -> bool:
    """Return whether a name can be written into a table."""
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        return False
    return True


def _sound(root: Path, video: Path) -> Path:
    """Return where the sound of a video is."""
    if "mp4" not in video.parts:
        return video
    place = video.parts.index("mp4")
    apart = Path(*video.parts[:place], "aac", *video.parts[place + 1 :]).with_suffix(".m4a")
    return apart if (root / apart).is_file() else video


def _read_labels(path: Path, videos: set[str]) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    labels = {}
    with open(path, newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        allowed = {"file", "identity", "emotion", "level", "split"}
        if not set(reader.fieldnames or ()) <= allowed or "file" not in (reader.fieldnames or ()):
            raise DicetalkError(
                f"{path} has the columns {reader.fieldnames}; expected `file` and any of {allowed}."
            )
        for number, line in enumerate(reader, 2):
            file = line.pop("file")
            if file not in videos:
                raise DicetalkError(f"{path}, line {number}: {file!r} is not a video below {path.parent}.")
            labels[file] = _label(
                {name: text for name, text in line.items() if text}, f"{path}, line {number}"
            )
    return labels


def _label(line: dict[str, str], where: str) -> dict[str, Any]:
    label: dict[str, Any] = dict(line)
    if "level" in line:
        if not line["level"].isdigit():
            raise DicetalkError(f"{where}: level {line['level']!r} is not a number.")
        label["level"] = int(line["level"])
    if "emotion" in line:
        class_index(line["emotion"], label.get("level", 0))  # raises for what is not a class
    if line.get("split", "train") not in ("train", "test"):
        raise DicetalkError(f"{where}: split {line['split']!r} is neither train nor test.")
    return label
