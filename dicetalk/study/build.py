"""Build a study: choose clips, assign raters, write blinded videos, the page, and the key apart from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_directory, atomic_path, sha256_file, write_json
from dicetalk.progress import log, track
from dicetalk.study.design import Check, Pair, Rating, Size, Trial, assign
from dicetalk.study.key import CheckTrial, Key, KeyTrial, PairTrial, RatingTrial, Stimulus
from dicetalk.study.media import write_blinded
from dicetalk.study.page import MEDIA, minutes, page_content, render
from dicetalk.study.questions import CRITERIA
from dicetalk.study.sources import Clip, choose_clips, find_clips

PAGE = "index.html"


@dataclass(frozen=True)
class Plan:
    """What the organiser decides.

    Attributes:
        title: heading of the page; raters see it.
        clips: how many clips are used, as far as there are.
        size: raters and their work.
        seed: of every random choice.
    """

    title: str
    clips: int
    size: Size
    seed: int


@dataclass(frozen=True)
class _Video:
    """A video of the page: a stimulus, or with a `message` the video of a check."""

    clip: str
    system: str
    message: tuple[str, ...] = ()


def build_study(
    folders: Mapping[str, Path], labels: Mapping[str, str] | None, plan: Plan, out: Path, key_path: Path
) -> Key:
    """Write the folder that is shown to raters, and the key that is not.

    Args:
        folders: system -> folder of its videos, matched by file name.
        labels: clip -> wanted emotion, if known.
        plan: size and seed.
        out: folder of the page; must not exist or be empty.
        key_path: the key; must not exist, and must not lie in `out`, which is made to be published.

    Raises:
        DicetalkError: when something would be overwritten, the inputs do not fit, or a video is broken.
    """
    _check_places(out, key_path)
    rng = np.random.default_rng(plan.seed)
    usable, left_out = find_clips(folders, labels)
    for name, reason in left_out.items():
        log(f"study: not used: {name}: {reason}")
    clips = {clip.name: clip for clip in choose_clips(usable, plan.clips, rng)}
    slots = assign(list(folders), list(clips), plan.size, rng)
    videos = sorted({video for slot in slots for trial in slot for video in _videos(trial)}, key=repr)
    tokens = dict(zip(videos, _tokens(len(videos), rng), strict=True))
    trials = list(dict.fromkeys(trial for slot in slots for trial in slot))
    names = dict(zip(trials, _tokens(len(trials), rng), strict=True))
    stimuli = {
        token: Stimulus(
            system=video.system,
            clip=video.clip,
            seconds=clips[video.clip].seconds,
            source_sha256=sha256_file(clips[video.clip].videos[video.system]),
        )
        for video, token in tokens.items()
    }
    key = Key(
        format="dicetalk-study-key",
        version=1,
        study="",
        title=plan.title,
        seed=plan.seed,
        systems=list(folders),
        criteria=list(CRITERIA),
        stimuli=dict(sorted(stimuli.items())),
        trials={name: _key_trial(trial, tokens) for trial, name in sorted(names.items(), key=lambda x: x[1])},
        slots=[[names[trial] for trial in slot] for slot in slots],
        left_out=left_out,
    )
    emotions = {clip.name: clip.emotion for clip in clips.values()}
    content = json.dumps([key.model_dump(), emotions], sort_keys=True)
    key = key.model_copy(update={"study": hashlib.sha256(content.encode()).hexdigest()[:12]})
    with atomic_directory(out) as folder:
        _write_media(folder / MEDIA, tokens, clips)
        with atomic_path(folder / PAGE) as temporary:
            temporary.write_text(render(key, page_content(key, emotions)), encoding="utf-8")
        write_json(key_path, key.model_dump())
    log(
        f"study: {out / PAGE}: {len(folders)} systems, {len(clips)} clips, {len(videos)} videos,"
        f" {len(slots)} participants, about {minutes(key)} minutes each; keep {key_path} to yourself"
    )
    return key


def _check_places(out: Path, key_path: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DicetalkError(f"--out {out} exists and is not empty; choose another, so that no study is lost.")
    if key_path.exists():
        raise DicetalkError(f"--key {key_path} exists; results of its study could no longer be read.")
    if out.resolve() in key_path.resolve().parents:
        raise DicetalkError(f"--key {key_path} lies in {out}, which raters can see; put it somewhere else.")


def _videos(trial: Trial) -> list[_Video]:
    """Return the videos of a trial; the two of a pair in the order A, B."""
    if isinstance(trial, Rating):
        return [_Video(trial.clip, trial.system)]
    if isinstance(trial, Pair):
        return [_Video(trial.clip, trial.left), _Video(trial.clip, trial.right)]
    told = f"choose {str(trial.expected).upper()}"
    return [_Video(trial.clip, trial.system, ("Attention check:", told, "for every question"))]


def _key_trial(trial: Trial, tokens: Mapping[_Video, str]) -> KeyTrial:
    stimuli = [tokens[video] for video in _videos(trial)]
    if isinstance(trial, Check):
        return CheckTrial(kind="check", part=trial.part, stimulus=stimuli[0], expected=trial.expected)
    if isinstance(trial, Pair):
        return PairTrial(kind="pair", left=stimuli[0], right=stimuli[1])
    return RatingTrial(kind="rating", stimulus=stimuli[0])


def _tokens(count: int, rng: np.random.Generator) -> list[str]:
    """Return different random names, so that neither a name nor the order of names means anything."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[rng.bytes(5).hex()] = None
    return list(found)


def _write_media(folder: Path, tokens: Mapping[_Video, str], clips: Mapping[str, Clip]) -> None:
    # In the order of the random names: a server tells when each file was written.
    order: Iterable[tuple[_Video, str]] = sorted(tokens.items(), key=lambda item: item[1])
    for video, token in track(list(order), "study videos"):
        clip = clips[video.clip]
        message = list(video.message) or None
        write_blinded(clip.videos[video.system], folder / f"{token}.mp4", clip.seconds, message)
