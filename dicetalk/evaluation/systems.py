"""The table of systems: ours, real clips as the ceiling, and floors that a metric must tell apart.

Every system answers the same question: which video and which sound are judged against which real clip and
its label? Pages show the systems in the order of the table.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from dicetalk.evaluation.trial import Measured, Seen, Trial

# Generated videos, real clips and reference images, by clip -> the videos that are judged.
MakeTrials = Callable[[Mapping[str, Measured], Mapping[str, Measured], Mapping[str, Seen]], Iterator[Trial]]


def own_trials(
    system: str,
    generated: Mapping[str, Measured],
    real: Mapping[str, Measured],
    references: Mapping[str, Seen],
) -> Iterator[Trial]:
    """Yield generated videos with their own sound, in the order of their clips."""
    for clip_id in sorted(generated):
        video = generated[clip_id].seen
        yield Trial(system, real[clip_id], video, video, references[clip_id])


def real_trials(
    generated: Mapping[str, Measured], real: Mapping[str, Measured], references: Mapping[str, Seen]
) -> Iterator[Trial]:
    """Yield the real clips themselves: what a perfect system would score."""
    for clip_id in sorted(references):
        clip = real[clip_id]
        yield Trial("real", clip, clip.seen, clip.seen, references[clip_id])


def still_trials(
    generated: Mapping[str, Measured], real: Mapping[str, Measured], references: Mapping[str, Seen]
) -> Iterator[Trial]:
    """Yield the reference image, repeated, with the real sound: the floor of everything that moves."""
    for clip_id in sorted(references):
        reference = references[clip_id]
        yield Trial("still", real[clip_id], reference, real[clip_id].seen, reference)


def wrong_audio_trials(
    generated: Mapping[str, Measured], real: Mapping[str, Measured], references: Mapping[str, Seen]
) -> Iterator[Trial]:
    """Yield our videos, each with the sound of the clip half the list away: the floor of lip sync."""
    names = sorted(generated)
    for index, clip_id in enumerate(names):
        other = names[(index + len(names) // 2) % len(names)]
        if other != clip_id:
            shown, heard = generated[clip_id].seen, generated[other].seen
            yield Trial("wrong_audio", real[clip_id], shown, heard, references[clip_id])


def wrong_emotion_trials(
    generated: Mapping[str, Measured], real: Mapping[str, Measured], references: Mapping[str, Seen]
) -> Iterator[Trial]:
    """Yield our videos of another emotion of the same identity, judged as if they were this clip's."""
    for clip_id in sorted(generated):
        clip = real[clip_id]
        others = [
            name
            for name in sorted(generated)
            if real[name].identity == clip.identity and real[name].emotion != clip.emotion
        ]
        if others:
            other = generated[others[zlib.crc32(clip_id.encode()) % len(others)]].seen
            yield Trial("wrong_emotion", clip, other, other, references[clip_id])


@dataclass(frozen=True)
class System:
    """One row.

    Attributes:
        name: its key in `metrics/evaluate.json`.
        label: its name on pages.
        standing: `ceiling`, `ours` or `floor`, also the CSS class on pages.
        note: what it is, on pages.
        tells: what it is good for.
        make_trials: makes it of the first system and the real clips; None for videos that were generated.
        has_ground_truth: whether its frames can be compared with those of the real clip.
        same_videos: whether it judges the first system's videos again, whose failures are listed there.
    """

    name: str
    label: str
    standing: Literal["ceiling", "ours", "floor"]
    note: str
    tells: str
    make_trials: MakeTrials | None = None
    has_ground_truth: bool = True
    same_videos: bool = False


_ROWS = (
    System(
        "real",
        "Real clips",
        "ceiling",
        "the real test clips through the same code: the ceiling",
        "what a perfect system would score",
        real_trials,
        has_ground_truth=False,
    ),
    System("ours", "Ours, mode P", "ours", "emotion from the class-mean prior", "the result"),
    System("ours_v", "Ours, mode V", "ours", "emotion from a reference video", "the result"),
    System("ours_a", "Ours, mode A", "ours", "emotion from the speech itself", "the result"),
    System(
        "wrong_emotion",
        "Wrong emotion",
        "floor",
        "our videos of another emotion of the same person",
        "a floor for emotion",
        wrong_emotion_trials,
        has_ground_truth=False,
        same_videos=True,
    ),
    System(
        "wrong_audio",
        "Wrong audio",
        "floor",
        "our videos against another clip's sound",
        "a floor for sync: what agreement by chance looks like",
        wrong_audio_trials,
        same_videos=True,
    ),
    System(
        "still",
        "Still image",
        "floor",
        "the reference frame, repeated",
        "a floor: a video without motion",
        still_trials,
        has_ground_truth=False,
    ),
)
SYSTEMS: dict[str, System] = {row.name: row for row in _ROWS}
# Ceiling and floors, in the order of their names; no system may take one.
DERIVED = tuple(sorted(row.name for row in _ROWS if row.make_trials is not None))


def find_system(name: str) -> System:
    """Return the row of a system; one that has none stands beside ours under its own name."""
    return SYSTEMS.get(name, System(name, name, "ours", "", ""))
