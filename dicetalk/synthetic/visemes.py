"""What the mouth does for each speech sound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SAMPLES_PER_SECOND = 200
COARTICULATION_SECONDS = 0.045
ANTICIPATION_SECONDS = 0.02  # lips move a little before the sound


@dataclass(frozen=True)
class Phoneme:
    """One sound (IPA, empty or a pause mark for silence) and when it is heard."""

    ipa: str
    start_seconds: float
    end_seconds: float


VISEME_CONTROLS = ("jaw", "mouth_round", "mouth_wide", "lip_press", "lip_part", "lip_bite")
BILABIALS, LABIODENTALS = "pbm", "fv"
JAW, PRESS = VISEME_CONTROLS.index("jaw"), VISEME_CONTROLS.index("lip_press")

# VISEME_CONTROLS per letter of an IPA symbol; the jaw opens as the IPA vowel chart says.
_OPENNESS = {
    "aɑ": 1.0, "æ": 0.9, "ɒ": 0.85, "ɐ": 0.8, "ʌ": 0.75, "ɛɔ": 0.65, "ɜo": 0.55, "e": 0.5, "ɝ": 0.45,
    "əɚ": 0.42, "ɪ": 0.32, "ʊᵻ": 0.3, "iu": 0.22,
}  # fmt: skip
_ROUNDING = {"ɒ": 0.35, "ɔ": 0.6, "o": 0.85, "ʊ": 0.8, "u": 1.0}
_WIDENING = {"i": 0.75, "ɪ": 0.45, "e": 0.45, "ɛ": 0.3, "æ": 0.3}
VISEMES: dict[str, tuple[float, ...]] = {
    vowel: (jaw, _ROUNDING.get(vowel, 0.0), _WIDENING.get(vowel, 0.0), 0.0, 0.25, 0.0)
    for vowels, jaw in _OPENNESS.items()
    for vowel in vowels
}
for _letters, _viseme in {
    BILABIALS: (0.0, 0.0, 0.0, 0.6, 0.0, 0.0),
    LABIODENTALS: (0.06, 0.0, 0.1, 0.0, 0.2, 1.0),
    "wʍ": (0.1, 1.0, 0.0, 0.0, 0.1, 0.0),
    "ɹrɾ": (0.2, 0.5, 0.0, 0.0, 0.2, 0.0),
    "sz": (0.08, 0.0, 0.25, 0.0, 0.6, 0.0),
    "ʃʒ": (0.1, 0.6, 0.0, 0.0, 0.6, 0.0),
    "tdnlθðkɡgŋjçxhɫʔ": (0.18, 0.0, 0.1, 0.0, 0.4, 0.0),
}.items():
    VISEMES |= dict.fromkeys(_letters, _viseme)


def viseme_track(phonemes: Sequence[Phoneme], num_frames: int, fps: float) -> dict[str, np.ndarray]:
    """Return mouth controls and `voice`, each (num_frames,), for timed phonemes.

    Targets are held for each sound and smoothed over time (coarticulation); lip closures and bites are then
    enforced, because short as they are they always complete.
    """
    margin = 0.3
    times = (
        np.arange(round((num_frames / fps + 2 * margin) * SAMPLES_PER_SECOND)) / SAMPLES_PER_SECOND - margin
    )
    targets = np.zeros((len(times), len(VISEME_CONTROLS)))
    voice, closure, lips = np.zeros(len(times)), np.zeros(len(times)), np.zeros(len(times))
    for letter, heard_start, heard_end in sounds(phonemes):
        start, end = heard_start - ANTICIPATION_SECONDS, heard_end - ANTICIPATION_SECONDS
        held = (times >= start) & (times < end)
        targets[held] = VISEMES[letter]
        voice[held] = 1.0
        middle, reach = (start + end) / 2, max((end - start) / 2, 0.03)
        tight = np.clip(1.6 - 1.1 * np.abs(times - middle) / reach, 0, 1)
        if letter in BILABIALS + LABIODENTALS:
            closure = np.maximum(closure, tight)
        if letter in BILABIALS:
            lips = np.maximum(lips, tight)
    kernel = np.hanning(2 * round(COARTICULATION_SECONDS * SAMPLES_PER_SECOND) + 3)
    kernel /= kernel.sum()
    smooth = np.stack([np.convolve(column, kernel, "same") for column in targets.T], 1)
    smooth[:, JAW] *= 1 - closure
    smooth[:, PRESS] = np.maximum(smooth[:, PRESS], lips)
    frame_times = (np.arange(num_frames) + 0.5) / fps
    tracks = {name: np.interp(frame_times, times, smooth[:, i]) for i, name in enumerate(VISEME_CONTROLS)}
    tracks["voice"] = np.interp(frame_times, times, np.convolve(voice, kernel, "same"))
    return tracks


def sounds(phonemes: Sequence[Phoneme]) -> Iterator[tuple[str, float, float]]:
    """Yield (letter, start, end) of what is heard, in seconds; diphthongs and affricates are split evenly."""
    for phoneme in phonemes:
        letters = [letter for letter in phoneme.ipa if letter in VISEMES]
        share = (phoneme.end_seconds - phoneme.start_seconds) / max(len(letters), 1)
        for index, letter in enumerate(letters):
            start = phoneme.start_seconds + index * share
            yield letter, start, start + share
