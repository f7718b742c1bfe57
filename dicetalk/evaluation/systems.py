"""The systems that are compared: ours, real clips as the ceiling, and floors that a metric must tell apart.

Every system answers the same question: which video and which sound are judged against which real clip and
its label?
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dicetalk.evaluation.observations import Observation

FLOORS = ("real", "still", "wrong_audio", "wrong_emotion")  # names no system may take


@dataclass(frozen=True)
class Measured:
    """A measured clip.

    Attributes:
        clip_id: name of the clip.
        identity: who is seen.
        emotion: its label, or None.
        level: 1 to 3; 0 without label.
        seen: what networks said about its frames and its sound.
    """

    clip_id: str
    identity: str
    emotion: str | None
    level: int
    seen: Observation


@dataclass(frozen=True)
class Trial:
    """One video of one system.

    Attributes:
        system: name of the system.
        real: the real clip that gives the label and the video to compare with.
        shown: the video that is judged.
        heard: the video whose sound it is judged with.
        reference: the reference image, as a video and on its own.
    """

    system: str
    real: Measured
    shown: Observation
    heard: Observation
    reference: Observation


def own_trials(
    system: str,
    generated: Mapping[str, Measured],
    real: Mapping[str, Measured],
    references: Mapping[str, Observation],
) -> Iterator[Trial]:
    """Yield generated videos with their own sound, in the order of their clips."""
    for clip_id in sorted(generated):
        video = generated[clip_id].seen
        yield Trial(system, real[clip_id], video, video, references[clip_id])


def real_trials(real: Mapping[str, Measured], references: Mapping[str, Observation]) -> Iterator[Trial]:
    """Yield the real clips themselves: what a perfect system would score."""
    for clip_id in sorted(references):
        clip = real[clip_id]
        yield Trial("real", clip, clip.seen, clip.seen, references[clip_id])


def still_trials(real: Mapping[str, Measured], references: Mapping[str, Observation]) -> Iterator[Trial]:
    """Yield the reference image, repeated, with the real sound: the floor of everything that moves."""
    for clip_id in sorted(references):
        reference = references[clip_id]
        yield Trial("still", real[clip_id], reference, real[clip_id].seen, reference)


def wrong_audio_trials(
    generated: Mapping[str, Measured],
    real: Mapping[str, Measured],
    references: Mapping[str, Observation],
) -> Iterator[Trial]:
    """Yield our videos, each with the sound of the clip half the list away: the floor of lip sync."""
    names = sorted(generated)
    for index, clip_id in enumerate(names):
        other = names[(index + len(names) // 2) % len(names)]
        if other != clip_id:
            shown, heard = generated[clip_id].seen, generated[other].seen
            yield Trial("wrong_audio", real[clip_id], shown, heard, references[clip_id])


def wrong_emotion_trials(
    generated: Mapping[str, Measured],
    real: Mapping[str, Measured],
    references: Mapping[str, Observation],
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
