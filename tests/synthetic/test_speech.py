"""Speech synthesis in process."""

from __future__ import annotations

import numpy as np
import pytest

from dicetalk.errors import DicetalkError
from dicetalk.labels import EMOTIONS, levels_of
from dicetalk.synthetic.speech import SAMPLE_RATE_HZ, Voice, synthesize

TEXT = "Bob may come home."
VOICE = Voice("m3", 35.0)


def loudness(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))


def test_same_words_sound_the_same_whatever_was_said_before() -> None:
    first = synthesize(TEXT, VOICE, "happy", 2)
    synthesize("Something else entirely.", Voice("f2", 60.0), "sad", 3)
    again = synthesize(TEXT, VOICE, "happy", 2)
    assert np.array_equal(first.samples, again.samples) and first.phonemes == again.phonemes


def test_phonemes_are_ordered_and_inside_the_sound() -> None:
    speech = synthesize(TEXT, VOICE, "neutral", 1)
    assert speech.sample_rate_hz == SAMPLE_RATE_HZ and speech.samples.dtype == np.float32
    ends = [sound.end_seconds for sound in speech.phonemes]
    assert ends == sorted(ends) and ends[-1] <= speech.seconds + 0.001
    assert all(sound.start_seconds < sound.end_seconds for sound in speech.phonemes)
    heard = "".join(sound.ipa for sound in speech.phonemes)
    assert heard.count("b") == 2 and heard.count("m") == 3


def test_vowels_are_louder_than_stops() -> None:
    speech = synthesize("Papa, papa, papa.", VOICE, "neutral", 1)

    def level(letters: str) -> float:
        parts = [
            speech.samples[round(p.start_seconds * SAMPLE_RATE_HZ) : round(p.end_seconds * SAMPLE_RATE_HZ)]
            for p in speech.phonemes
            if any(letter in p.ipa for letter in letters)
        ]
        return loudness(np.concatenate(parts))

    assert level("ɑəa") > 2 * level("p")


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_sound_is_finite_and_not_clipped(emotion: str) -> None:
    speech = synthesize(TEXT, VOICE, emotion, levels_of(emotion)[-1])
    assert np.isfinite(speech.samples).all() and 0.05 < np.abs(speech.samples).max() < 0.99


def test_prosody_follows_the_emotion_and_its_level() -> None:
    neutral = synthesize(TEXT, VOICE, "neutral", 1)
    sad = [synthesize(TEXT, VOICE, "sad", level) for level in (1, 2, 3)]
    angry = [synthesize(TEXT, VOICE, "angry", level) for level in (1, 2, 3)]
    seconds = [neutral.seconds] + [speech.seconds for speech in sad]
    assert seconds == sorted(seconds) and seconds[-1] > 1.2 * seconds[0]
    volumes = [loudness(speech.samples) for speech in (neutral, *angry)]
    assert volumes == sorted(volumes)


def test_mistakes_are_named() -> None:
    with pytest.raises(DicetalkError, match="nothing"):
        synthesize(" , ", VOICE, "happy", 1)
    with pytest.raises(DicetalkError, match="zz"):
        synthesize(TEXT, Voice("zz", 50.0), "happy", 1)
    with pytest.raises(DicetalkError, match="neutral"):
        synthesize(TEXT, VOICE, "neutral", 3)
