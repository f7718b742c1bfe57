"""One person acting one sentence: face states and sound on a common clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dicetalk.synthetic.expression import FaceState, emotion_targets
from dicetalk.synthetic.geometry import View
from dicetalk.synthetic.identity import Identity
from dicetalk.synthetic.motion import compose, idle_motion, speech_articulation
from dicetalk.synthetic.render import render_view
from dicetalk.synthetic.speech import SAMPLE_RATE_HZ, Speech, Voice, synthesize

PAUSE_SECONDS = 0.1  # at least this much silence before the first and after the last sound


@dataclass(frozen=True)
class Performance:
    """A take: one face state per frame and float32 sound at 16 kHz of the same length."""

    identity: Identity
    states: list[FaceState]
    samples: np.ndarray

    def frames(self, view: View) -> Iterator[np.ndarray]:
        """Yield the frames as uint8 RGB (height, width, 3)."""
        return (render_view(self.identity, state, view) for state in self.states)


def perform(
    identity: Identity,
    emotion: str,
    level: int,
    text: str,
    seconds: float,
    fps: float,
    rng: np.random.Generator,
) -> Performance:
    """Let a person say `text` with an emotion in a take of `seconds`; words that do not fit are dropped.

    Raises:
        DicetalkError: for an unknown emotion or level, or when not even the first word fits.
    """
    num_frames = max(1, round(seconds * fps))
    samples = np.zeros(round(num_frames / fps * SAMPLE_RATE_HZ), np.float32)
    speech = _speech_within(text, Voice.of(identity), emotion, level, seconds - 2 * PAUSE_SECONDS)
    slack = seconds - speech.seconds - 2 * PAUSE_SECONDS
    start = PAUSE_SECONDS + max(slack, 0.0) * rng.uniform(0.2, 0.6)
    first = round(start * SAMPLE_RATE_HZ)
    samples[first : first + len(speech.samples)] = speech.samples[: len(samples) - first]
    phonemes = [
        replace(sound, start_seconds=sound.start_seconds + start, end_seconds=sound.end_seconds + start)
        for sound in speech.phonemes
    ]
    states = compose(
        emotion_targets(emotion, level),
        idle_motion(rng, num_frames, fps),
        speech_articulation(phonemes, num_frames, fps),
        seed=int(rng.integers(2**31)),
    )
    return Performance(identity, states, samples)


def _speech_within(text: str, voice: Voice, emotion: str, level: int, seconds: float) -> Speech:
    """Speak as many words of `text` as fit into `seconds`, at least one."""
    words = text.split()
    speech = synthesize(text, voice, emotion, level)
    while speech.seconds > seconds and len(words) > 1:
        fitting = int(len(words) * seconds / speech.seconds)
        words = words[: max(1, min(fitting, len(words) - 1))]
        speech = synthesize(" ".join(words), voice, emotion, level)
    return speech
