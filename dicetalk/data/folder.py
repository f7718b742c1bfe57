"""A folder of one's own videos. Labels, if any, come from a `clips.csv` in it.

`clips.csv` has a column `file` (path relative to the folder) and any of `identity`, `emotion`, `level` and
`split`. Files it does not list are used without a label; without it the file's name is the identity.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pandas as pd

from dicetalk.data.index import make_table
from dicetalk.errors import DicetalkError
from dicetalk.labels import class_index

SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
LABELS = "clips.csv"


def index_folder(root: Path) -> pd.DataFrame:
    """Return one row per video below a folder.

    Raises:
        DicetalkError: when there is no video, or `clips.csv` has a missing file, an unknown column or label.
    """
    root = Path(root)
    videos = sorted(path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not videos:
        raise DicetalkError(f"{root} holds no video ({', '.join(sorted(SUFFIXES))}).")
    labels = _read_labels(root / LABELS, {path.as_posix() for path in videos})
    records, used = [], set()
    for path in videos:
        clip_id = name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.with_suffix("").as_posix()).strip("-") or "clip"
        repeat = 1
        while clip_id in used:
            repeat += 1
            clip_id = f"{name}-{repeat}"
        used.add(clip_id)
        file = path.as_posix()
        record = {
            "clip_id": clip_id,
            "dataset": "folder",
            "identity": path.stem,
            "level": 0,
            "split": "train",
        }
        records.append({**record, "video_path": file, "audio_path": file, **labels.get(file, {})})
    return make_table(records)


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
