"""MEAD on disk.

`<ID>/video/<view>/<emotion>/level_<k>/<NNN>.mp4` and `<ID>/audio/<emotion>/level_<k>/<NNN>.m4a`.

What the real thing does and this reader takes in its stride: an extra folder from split downloads
(`<ID>/video-001/video/...`), gaps in the sentence numbers, clips without sound, missing views, neutral at
level 1 only. What it refuses with an instruction: archives that are not unpacked, clips that exist twice,
views that nobody has. What it leaves out is counted in the log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from dicetalk.config import CorpusIndex
from dicetalk.data.corpora.base import Corpus
from dicetalk.data.index_table import make_table
from dicetalk.emotion_sets.mead import MEAD
from dicetalk.errors import DicetalkError
from dicetalk.progress import log

IDENTITY = re.compile(r"[MW]\d{3}")
LAYOUT = "<ID>/video/<view>/<emotion>/level_<k>/<NNN>.mp4"
SENTENCE = {"video": re.compile(r"(\d{3})\.mp4"), "audio": re.compile(r"(\d{3})\.m4a")}
LEVEL_FOLDERS = {
    emotion: {f"level_{level}": level for level in levels}
    for emotion, levels in MEAD.levels_by_emotion.items()
}
EAT_TEST = ["M003", "M030", "W009", "W015"]  # test identities of EAT, EDTalk and Xemo-Talker


class MeadIndex(CorpusIndex):
    """Which part of MEAD is used."""

    views: list[str] | Literal["all"]  # folder names such as `front`


class Mead(Corpus[MeadIndex]):
    """MEAD, the paper's emotional data."""

    section = MeadIndex
    classes = MEAD.classes
    splits = {"eat": EAT_TEST, "paper": [*EAT_TEST, "W011"]}  # the paper: 5 of 46, unnamed; the fifth is ours
    source = "its authors send a link on request"
    licence = "non-commercial research; no part may be passed on"

    def read(self, notes: Path) -> pd.DataFrame:
        """Return one row per clip of the views; `audio_path` is missing where MEAD has no sound file.

        Raises:
            DicetalkError: when nothing is found, archives are not unpacked, a clip exists twice, or nobody
                has one of the views.
        """
        root = Path(self.settings.root)
        people = sorted(
            entry.name for entry in os.scandir(root) if entry.is_dir() and IDENTITY.fullmatch(entry.name)
        )
        folders = {name: {kind: _media_folders(root, name, kind) for kind in SENTENCE} for name in people}
        _check_unpacked(root, folders)
        wanted = self._wanted_views(folders)
        left_out: list[str] = []
        table = make_table(
            record for name in people for record in self._person(name, folders[name], wanted, left_out)
        )
        if table.empty:
            raise DicetalkError(
                f"{root} holds no clip of the form {LAYOUT} for the views {', '.join(wanted)}."
            )
        if (repeated := table["clip_id"].duplicated()).any():
            raise DicetalkError(
                f"{root}: {table['clip_id'][repeated].iloc[0]} exists in two folders; remove one."
            )
        if left_out:
            log(
                f"{self.name}: {len(left_out)} names below {root} are not part of MEAD's layout, "
                f"e.g. {left_out[0]}"
            )
        return table

    def _wanted_views(self, folders: dict[str, dict[str, list[str]]]) -> list[str]:
        root, views = Path(self.settings.root), self.settings.views
        there = {
            entry.name
            for kinds in folders.values()
            for folder in kinds["video"]
            for entry in os.scandir(root / folder)
            if entry.is_dir()
        }
        wanted = sorted(there) if views == "all" else list(views)
        if there and (unknown := sorted(set(wanted) - there)):
            raise DicetalkError(
                f"index.{self.name}.views names {', '.join(unknown)}, which nobody in {root} has; "
                f"found: {', '.join(sorted(there))}."
            )
        return wanted

    def _person(
        self, person: str, folders: dict[str, list[str]], views: list[str], left_out: list[str]
    ) -> Iterator[dict[str, Any]]:
        root = Path(self.settings.root)
        sounds: dict[tuple[str, int, str], str] = {}
        for folder in folders["audio"]:
            for emotion, level, sentence, path in _clips(root, folder, "audio", left_out):
                if sounds.setdefault((emotion, level, sentence), path) != path:
                    raise DicetalkError(f"{root}: {path} also exists in another folder; remove one.")
        for view in views:
            found = 0
            for folder in folders["video"]:
                for emotion, level, sentence, path in _clips(root, f"{folder}/{view}", "video", left_out):
                    found += 1
                    yield {
                        "clip_id": f"{person}_{view}_{emotion}_{level}_{sentence}",
                        "dataset": self.name,
                        "identity": person,
                        "emotion": emotion,
                        "level": level,
                        "sentence": sentence,
                        "view": view,
                        "video_path": path,
                        "audio_path": sounds.get((emotion, level, sentence)),
                    }
            if not found:
                log(f"{self.name}: {person} has no clip of the view {view}")


def _media_folders(root: Path, person: str, kind: str) -> list[str]:
    """Return the folders, relative to the root, that hold a person's `video` or `audio`."""
    folders = []
    for entry in sorted(os.scandir(root / person), key=lambda entry: entry.name):
        if entry.is_dir() and (entry.name == kind or entry.name.startswith(f"{kind}-")):
            nested = f"{person}/{entry.name}/{kind}"
            folders.append(nested if (root / nested).is_dir() else f"{person}/{entry.name}")
    return folders


def _check_unpacked(root: Path, folders: dict[str, dict[str, list[str]]]) -> None:
    """Raise when somebody's pictures, or sounds that came as an archive, are still packed."""
    packed = []
    for person, kinds in folders.items():
        archives = [path.name for path in sorted((root / person).glob("*.tar"))]
        for kind in SENTENCE:
            empty = not any(next(os.scandir(root / folder), None) for folder in kinds[kind])
            waiting = [name for name in archives if name.startswith(kind)]
            if empty and (waiting or (kind == "video" and not kinds[kind])):
                packed += [f"{person}/{name}" for name in waiting] or [f"{person} (no {kind} folder)"]
    if packed:
        named = ", ".join(packed[:5]) + (f" and {len(packed) - 5} more" if len(packed) > 5 else "")
        raise DicetalkError(
            f"Not unpacked in {root}: {named}. Unpack every archive beside itself, for example: "
            f'cd {root} && for f in */*.tar; do tar -xf "$f" -C "$(dirname "$f")"; done'
        )


def _clips(root: Path, folder: str, kind: str, left_out: list[str]) -> Iterator[tuple[str, int, str, str]]:
    """Yield emotion, level, sentence number and relative path of every media file below a folder."""
    for emotion in _names(root / folder):
        if emotion not in LEVEL_FOLDERS:
            left_out.append(f"{folder}/{emotion}")
            continue
        for level_folder in _names(root / folder / emotion):
            place = f"{folder}/{emotion}/{level_folder}"
            level = LEVEL_FOLDERS[emotion].get(level_folder)
            if level is None:
                left_out.append(place)
                continue
            for name in _names(root / place):
                if match := SENTENCE[kind].fullmatch(name):
                    yield emotion, level, match[1], f"{place}/{name}"
                else:
                    left_out.append(f"{place}/{name}")


def _names(folder: Path) -> list[str]:
    """Return the names in a folder in order; none where there is no such folder."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
