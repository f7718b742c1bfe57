"""Folders of any system's videos: which files, their labels, and how they differ from the real ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from dicetalk.data.suffixes import VIDEO_SUFFIXES
from dicetalk.errors import DicetalkError
from dicetalk.labels import EMOTIONS, check_emotion

if TYPE_CHECKING:
    from dicetalk.data.media import MediaInfo

# `M003_neu_1_001` of EAT's evaluation and `M003#neutral#1#001` of EDTalk's lists: person, emotion, level,
# number.
MEAD_NAME = re.compile(
    r"(?P<identity>[MW]\d{3})[_#](?P<emotion>[a-z]+)[_#](?:level_?)?(?P<level>[123])[_#]\d+"
)
ABBREVIATIONS = {name[:3]: name for name in EMOTIONS}
FPS_TOLERANCE = 0.01

Label = tuple[str, str | None, int]


def find_videos(folder: Path) -> dict[str, Path]:
    """Return the videos of a folder by name without suffix, in the order of names.

    Raises:
        DicetalkError: when two files have the same name but for the suffix.
    """
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise DicetalkError(f"{found[path.stem]} and {path} have the same name; remove one.")
            found[path.stem] = path
    return found


def read_labels(folder: Path, videos: Mapping[str, Path]) -> dict[str, Label]:
    """Return identity, emotion and level of each video: from `clips.csv`, else from its name, else none.

    `clips.csv` is the one of `dicetalk preprocess`: `file` and any of `identity`, `emotion`, `level`.

    Raises:
        DicetalkError: when `clips.csv` has no column `file` or an unknown emotion.
    """
    labels: dict[str, Label] = {name: _label_of_name(name) for name in videos}
    path = Path(folder) / "clips.csv"
    if not path.is_file():
        return labels
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if "file" not in table:
        raise DicetalkError(f"{path} has no column `file`, found {', '.join(table)}.")
    for row in table.to_dict("records"):
        name = Path(row["file"]).stem
        if name not in labels:
            continue
        emotion, level = row.get("emotion") or None, row.get("level") or "0"
        if emotion is not None:
            check_emotion(emotion)
        if not level.isdigit():
            raise DicetalkError(f"{path}: level {level!r} of {row['file']} is no whole number.")
        labels[name] = (row.get("identity", ""), emotion, int(level))
    return labels


def compare_media(
    systems: Mapping[str, Mapping[str, Path]], real: Mapping[str, Path], fps: float
) -> list[dict[str, str]]:
    """Return what was done to videos that differ from the protocol or from their real counterpart.

    Returns:
        `{"system", "clip_id", "note"}` for each of them; files that cannot be read are listed elsewhere.
    """
    notes = []
    sizes = {}
    for system, paths in {"real": real, **systems}.items():
        for name, path in sorted(paths.items()):
            try:
                info = _probe(path)
            except DicetalkError:
                continue
            size = (info.width, info.height)
            if system == "real":
                sizes[name] = size
            if info.fps and abs(float(info.fps) - fps) > FPS_TOLERANCE:
                notes.append(_note(system, name, f"{float(info.fps):.3f} fps, read at {fps:g} fps"))
            if size != sizes.get(name, size):
                wanted = "{} x {}".format(*sizes[name])
                notes.append(_note(system, name, f"{size[0]} x {size[1]} px, its real video {wanted} px"))
    return notes


def _note(system: str, name: str, text: str) -> dict[str, str]:
    return {"system": system, "clip_id": name, "note": text}


def _probe(path: Path) -> MediaInfo:
    from dicetalk.data.media import probe

    return probe(path)


def _label_of_name(name: str) -> Label:
    match = MEAD_NAME.fullmatch(name)
    emotion = match and ABBREVIATIONS.get(match["emotion"][:3])
    if not match or not emotion:
        return ("", None, 0)
    return (match["identity"], emotion, int(match["level"]))
