"""A small study: three systems whose videos are moving colours with a tone, and raters who answer by rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dicetalk.data.mp4 import write_video
from dicetalk.study.build import Plan, build_study
from dicetalk.study.design import Size
from dicetalk.study.key import Key, PairTrial, RatingTrial

SYSTEMS = ("alphasys", "betasys", "gammasys")
EMOTIONS = ("happy", "sad", "angry", "neutral")
FPS = 25
Choose = Callable[[str, Any], int | str]


class Study(NamedTuple):
    """Where a study lies."""

    root: Path
    folders: dict[str, Path]
    page: Path
    key_path: Path
    key: Key


def write_systems(root: Path, num_clips: int, num_frames: int = 13) -> dict[str, Path]:
    """Write the videos of all systems, and `labels.csv`."""
    tone = 0.2 * np.sin(np.arange(num_frames * 640) / 5).astype(np.float32)
    for number, system in enumerate(SYSTEMS):
        for clip in range(num_clips):
            frames = np.full((num_frames, 48, 64, 3), 60 + 60 * number, np.uint8)
            for index, frame in enumerate(frames):
                frame[10 : 20 + 2 * clip, 2 * index : 2 * index + 12] = 250
            path = root / system / f"clip{clip}.mp4"
            write_video(path, frames, FPS, tone, 16000, {"comment": f"made by {system}"})
    rows = "".join(f"clip{clip},{EMOTIONS[clip % len(EMOTIONS)]}\n" for clip in range(num_clips))
    (root / "labels.csv").write_text("clip_id,emotion\n" + rows)
    return {system: root / system for system in SYSTEMS}


def build(root: Path, folders: dict[str, Path], size: Size, clips: int = 4, seed: int = 0) -> Key:
    """Build a study into `root/study` and `root/key.json`."""
    labels = {f"clip{clip}": EMOTIONS[clip % len(EMOTIONS)] for clip in range(clips)}
    return build_study(folders, labels, Plan("Faces", clips, size, seed), root / "study", root / "key.json")


def answers_of(key: Key, participant: int, rate: Choose, prefer: Choose) -> list[dict[str, Any]]:
    """Return the answers of a rater who does every check right.

    Args:
        key: the study.
        participant: whose list is worked through.
        rate: (criterion, stimulus) -> rating.
        prefer: (criterion, (left, right)) -> `a`, `same` or `b`.
    """
    answers = []
    for name in key.slots[participant - 1]:
        trial = key.trials[name]
        values: dict[str, int | str] = {}
        for criterion in key.criteria:
            if isinstance(trial, RatingTrial):
                values[criterion] = rate(criterion, key.stimuli[trial.stimulus])
            elif isinstance(trial, PairTrial):
                pair = key.stimuli[trial.left], key.stimuli[trial.right]
                values[criterion] = prefer(criterion, pair)
            else:
                values[criterion] = trial.expected
        answers.append({"trial": name, "values": values, "seconds": 9.5 + participant, "plays": [1]})
    return answers


def result_of(key: Key, participant: int, answers: list[dict[str, Any]], session: int) -> dict[str, Any]:
    """Return a result as the page saves it."""
    return {
        "format": "dicetalk-study-result",
        "version": 1,
        "study": key.study,
        "participant": participant,
        "session": f"{session:016x}",
        "started": "2026-01-01T10:00:00.000Z",
        "finished": None,
        "answers": answers,
        "problems": [],
    }


def save(path: Path, content: Any) -> Path:
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
