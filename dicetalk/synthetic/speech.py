"""Emotional speech with exact phoneme times, by espeak-ng inside the process.

Library and voices come from the PyPI package `espeakng-loader` (espeak-ng 1.52, GPL-3.0-or-later), called,
not included.
"""

from __future__ import annotations

import _ctypes
import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import espeakng_loader
import numpy as np
from scipy.signal import lfilter, resample_poly

from dicetalk.errors import DicetalkError
from dicetalk.labels import class_index
from dicetalk.synthetic.expression import LEVEL_STRENGTH
from dicetalk.synthetic.identity import Identity
from dicetalk.synthetic.visemes import Phoneme

SAMPLE_RATE_HZ = 16000
NATIVE_RATE_HZ = 22050
WORDS_PER_MINUTE = 175
REFERENCE_RMS = 0.06
PEAK = 0.98

# Constants of espeak-ng's public header speak_lib.h.
_AUDIO_SYNCHRONOUS = 2
_PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT = 0x1, 0x2, 0x8000
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_EVENT_END, _EVENT_PHONEME = 0, 7
_UTF8 = 1
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Voice:
    """A speaker: an espeak-ng voice variant (e.g. `f2`, `m3`) and base pitch on espeak's 0-99 scale."""

    variant: str
    pitch: float

    @classmethod
    def of(cls, identity: Identity) -> Voice:
        """Return the voice that belongs to a procedural person."""
        count = 4 if identity.feminine else 7
        number = 1 + int(identity.voice_pitch * 1000) % count
        return cls(f"{'f' if identity.feminine else 'm'}{number}", identity.voice_pitch)


@dataclass(frozen=True)
class Prosody:
    """How an emotion at full strength changes speech: factors, and points of espeak's pitch scale."""

    rate: float = 1.0
    pitch: float = 0.0
    pitch_range: float = 0.0
    loudness: float = 1.0
    brightness: float = 0.0  # first-order pre-emphasis; negative muffles
    tremor: float = 0.0  # depth of a 7 Hz loudness tremble


# Directions after the classic reviews of vocal affect (Scherer 2003; Juslin and Laukka 2003); sizes are ours.
PROSODIES: dict[str, Prosody] = {
    "angry": Prosody(rate=1.2, pitch=8, pitch_range=25, loudness=2.0, brightness=0.6),
    "contempt": Prosody(rate=0.82, pitch=-12, pitch_range=18, loudness=0.9, brightness=0.15),
    "disgusted": Prosody(rate=0.8, pitch=-8, pitch_range=-15, loudness=1.15, brightness=-0.3),
    "fear": Prosody(rate=1.28, pitch=24, pitch_range=-20, loudness=0.8, brightness=0.3, tremor=0.45),
    "happy": Prosody(rate=1.1, pitch=14, pitch_range=38, loudness=1.3, brightness=0.3),
    "neutral": Prosody(),
    "sad": Prosody(rate=0.74, pitch=-14, pitch_range=-38, loudness=0.5, brightness=-0.6),
    "surprised": Prosody(rate=0.98, pitch=30, pitch_range=45, loudness=1.5, brightness=0.1),
}


@dataclass(frozen=True)
class Speech:
    """A spoken sentence: mono float32 samples in [-1, 1] and what is heard when."""

    samples: np.ndarray
    sample_rate_hz: int
    phonemes: tuple[Phoneme, ...]

    @property
    def seconds(self) -> float:
        """Duration of the audio."""
        return len(self.samples) / self.sample_rate_hz


def synthesize(text: str, voice: Voice, emotion: str, level: int) -> Speech:
    """Speak `text` with the prosody of an emotion; equal arguments give equal samples.

    Raises:
        DicetalkError: for an unknown (emotion, level) or voice, or a text without any sound.
    """
    class_index(emotion, level)
    strength, prosody = LEVEL_STRENGTH[level], PROSODIES[emotion]
    rate = round(WORDS_PER_MINUTE * prosody.rate**strength)
    pitch = round(min(max(voice.pitch + strength * prosody.pitch, 0), 99))
    pitch_range = round(min(max(50 + strength * prosody.pitch_range, 0), 99))
    with _LOCK:
        samples, events = _speak(text, voice.variant, rate, pitch, pitch_range)
    if not events or not samples.any():
        raise DicetalkError(
            f"espeak-ng said nothing for the text {text!r}; expected at least one spoken word."
        )
    common = gcd(SAMPLE_RATE_HZ, NATIVE_RATE_HZ)
    speech = resample_poly(samples, SAMPLE_RATE_HZ // common, NATIVE_RATE_HZ // common)
    speech = lfilter([1.0, -strength * prosody.brightness], [1.0], speech)
    seconds = np.arange(len(speech)) / SAMPLE_RATE_HZ
    speech *= 1 - strength * prosody.tremor * (0.5 + 0.5 * np.sin(2 * np.pi * 7.0 * seconds))
    speech *= REFERENCE_RMS * prosody.loudness**strength / np.sqrt(np.mean(speech**2))
    speech *= min(1.0, PEAK / np.abs(speech).max())
    return Speech(speech.astype(np.float32), SAMPLE_RATE_HZ, _phonemes(events, len(samples)))


def _phonemes(events: list[tuple[int, str]], end: int) -> tuple[Phoneme, ...]:
    """Turn start marks (sample, IPA) into intervals; each sound lasts until the next mark."""
    starts = [sample for sample, _ in events] + [end]
    return tuple(
        Phoneme(ipa, start / NATIVE_RATE_HZ, stop / NATIVE_RATE_HZ)
        for (start, ipa), stop in zip(events, starts[1:], strict=True)
        if stop > start
    )


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@contextmanager
def _fresh_library() -> Iterator[ctypes.CDLL]:
    """Load espeak-ng with its initial state and unload it again.

    No function resets its static variables (pitch flutter, noise phase) between sentences, unloading does.
    """
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        data = espeakng_loader.get_data_path()
        options = _PHONEME_EVENTS | _PHONEME_IPA | _DONT_EXIT
        if library.espeak_Initialize(_AUDIO_SYNCHRONOUS, 0, data.encode(), options) != NATIVE_RATE_HZ:
            raise DicetalkError(f"espeak-ng did not start at {NATIVE_RATE_HZ} Hz with the data in {data}.")
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        try:
            yield library
        finally:
            library.espeak_Terminate()
    finally:
        _ctypes.dlclose(library._handle)


def _speak(
    text: str, variant: str, rate: int, pitch: int, pitch_range: int
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Return float samples at `NATIVE_RATE_HZ` and phoneme start marks (sample, IPA)."""
    if not (Path(espeakng_loader.get_data_path()) / "voices" / "!v" / variant).is_file():
        raise DicetalkError(f"espeak-ng has no voice variant {variant!r}; expected one such as f2 or m3.")
    blocks: list[np.ndarray] = []
    marks: list[tuple[int, str]] = []

    def receive(wave: Any, count: int, events: Any) -> int:
        if wave and count:
            blocks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != _EVENT_END:
            if events[index].type == _EVENT_PHONEME:
                marks.append((events[index].sample, events[index].id.string.decode("utf-8", "ignore")))
            index += 1
        return 0

    callback = _CALLBACK(receive)
    with _fresh_library() as library:
        library.espeak_SetSynthCallback(callback)
        library.espeak_SetVoiceByName(f"en-us+{variant}".encode())
        for parameter, value in ((_RATE, rate), (_VOLUME, 100), (_PITCH, pitch), (_RANGE, pitch_range)):
            library.espeak_SetParameter(parameter, value, 0)
        encoded = text.encode()
        library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 0, 0, _UTF8, None, None)
        library.espeak_Synchronize()
    samples = np.concatenate(blocks) if blocks else np.zeros(0)
    return samples.astype(np.float64) / 32768, marks
