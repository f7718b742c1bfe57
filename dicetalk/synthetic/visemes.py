"""What the mouth does for each speech sound."""

from __future__ import annotations

from collections.abc import Sequence
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

# (jaw, round, wide, press, part, bite) per letter of an IPA symbol; jaw opening follows the IPA chart's openness.
_OPEN = {"a": 1.0, "ɑ": 1.0, "æ": 0.9, "ɐ": 0.8, "ʌ": 0.75, "ɒ": 0.85, "ɔ": 0.65, "ɛ": 0.65, "ɜ": 0.55, "ə": 0.42,
         "e": 0.5, "o": 0.55, "ɪ": 0.32, "i": 0.22, "ʊ": 0.3, "u": 0.22, "ᵻ": 0.3, "ɚ": 0.42, "ɝ": 0.45}  # fmt: skip
_ROUND = {"ɒ": 0.35, "ɔ": 0.6, "o": 0.85, "ʊ": 0.8, "u": 1.0}
_WIDE = {"i": 0.75, "ɪ": 0.45, "e": 0.45, "ɛ": 0.3, "æ": 0.3}
VISEMES: dict[str, tuple[float, ...]] = {
    vowel: (jaw, _ROUND.get(vowel, 0.0), _WIDE.get(vowel, 0.0), 0.0, 0.25, 0.0)
    for vowel, jaw in _OPEN.items()
}
VISEMES |= dict.fromkeys("pbm", (0.0, 0.0, 0.0, 0.6, 0.0, 0.0))
VISEMES |= dict.fromkeys("fv", (0.06, 0.0, 0.1, 0.0, 0.2, 1.0))
VISEMES |= dict.fromkeys("wʍ", (0.1, 1.0, 0.0, 0.0, 0.1, 0.0))
VISEMES |= dict.fromkeys("ɹrɾ", (0.2, 0.5, 0.0, 0.0, 0.2, 0.0))
VISEMES |= dict.fromkeys("szʃʒ", (0.08, 0.0, 0.25, 0.0, 0.6, 0.0))
VISEMES |= dict.fromkeys("ʃʒ", (0.1, 0.6, 0.0, 0.0, 0.6, 0.0))
VISEMES |= dict.fromkeys("tdnlθðkɡgŋjçxhɫʔ", (0.18, 0.0, 0.1, 0.0, 0.4, 0.0))
SILENCE = (0.0,) * len(VISEME_CONTROLS)
CLOSING = "pbmfv"


def is_sound(ipa: str) -> bool:
    """Tell whether a symbol moves the mouth (stress and length marks, pauses and the empty symbol do not)."""
    return _letter(ipa) is not None


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
    voice, closure = np.zeros(len(times)), np.zeros(len(times))
    for phoneme in phonemes:
        letter = _letter(phoneme.ipa)
        if letter is None:
            continue
        start, end = phoneme.start_seconds - ANTICIPATION_SECONDS, phoneme.end_seconds - ANTICIPATION_SECONDS
        held = (times >= start) & (times < end)
        targets[held] = VISEMES[letter]
        voice[held] = 1.0
        if letter in CLOSING:
            middle, reach = (start + end) / 2, max((end - start) / 2, 0.03)
            closure = np.maximum(closure, np.clip(1.6 - 1.1 * np.abs(times - middle) / reach, 0, 1))
    kernel = np.hanning(2 * round(COARTICULATION_SECONDS * SAMPLES_PER_SECOND) + 3)
    kernel /= kernel.sum()
    smooth = np.stack([np.convolve(column, kernel, "same") for column in targets.T], 1)
    smooth[:, 0] *= 1 - closure * (targets[:, 0] < 0.1)
    frame_times = (np.arange(num_frames) + 0.5) / fps
    tracks = {name: np.interp(frame_times, times, smooth[:, i]) for i, name in enumerate(VISEME_CONTROLS)}
    tracks["voice"] = np.interp(frame_times, times, np.convolve(voice, kernel, "same"))
    return tracks


def _letter(ipa: str) -> str | None:
    return next((letter for letter in ipa if letter in VISEMES), None)
