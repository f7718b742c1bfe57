"""Speech features: count, scale and official windowing; `tests/parity` compares Whisper's."""

from __future__ import annotations

import numpy as np
import pytest

from dicetalk.config import Speech
from dicetalk.data.speech import (
    SPEECH_ENCODER,
    LogMelSpeech,
    audio_windows,
    load_speech_encoder,
)
from dicetalk.errors import DicetalkError


def test_logmel_has_two_tokens_per_frame_and_unit_scale():
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000 + 639).astype(np.float32)
    features = LogMelSpeech(40).encode(samples)
    assert features.shape == (50, 1, 40) and features.dtype == np.float32
    assert np.abs(features).max() < 4
    silence = LogMelSpeech(40).encode(np.zeros(16_000, np.float32))
    assert np.allclose(silence, -2.2)  # -80 dB


def test_logmel_keeps_loudness():
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    loud, quiet = LogMelSpeech(40).encode(samples), LogMelSpeech(40).encode(samples / 10)
    assert (loud - quiet).mean() == pytest.approx(1.0, abs=0.01)  # 20 dB = one standard deviation


def test_windows_follow_the_official_padding():
    tokens = np.arange(1, 13, dtype=np.float32).reshape(12, 1, 1)
    windows = audio_windows(tokens, num_frames=3)[..., 0, 0]
    assert windows[0].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert windows[1].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert windows[2].tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 0, 0]


def test_windows_refuse_more_frames_than_sound():
    with pytest.raises(DicetalkError, match="cover 3 frames"):
        audio_windows(np.zeros((12, 1, 1)), num_frames=4)


@pytest.mark.parametrize("samples", [np.zeros((2, 16_000)), np.zeros(1000), np.full(16_000, np.nan)])
def test_unusable_sound_is_refused(samples: np.ndarray):
    with pytest.raises(DicetalkError):
        LogMelSpeech(40).encode(samples)


def test_phoneme_features_lie_beside_the_spectrogram(tmp_path):
    from dicetalk.models.phonemes import PhonemeEncoder

    PhonemeEncoder(num_mels=8, hidden_dim=16).save_pretrained(tmp_path / SPEECH_ENCODER)
    speech = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    encoder = load_speech_encoder(Speech(backend="phonemes", num_mels=40), tmp_path)
    features = encoder.encode(speech)
    assert features.shape == (50, encoder.num_layers, encoder.channels) == (50, 2, 8)
    assert np.array_equal(features[:, 0], LogMelSpeech(8).encode(speech)[:, 0])
    assert np.abs(features[:, 1].mean(-1)).max() < 1e-5  # normalised over the channels


def test_a_backbone_without_phoneme_network_is_refused(tmp_path):
    with pytest.raises(DicetalkError, match="encode.speech.backend"):
        load_speech_encoder(Speech(backend="phonemes", num_mels=40), tmp_path)
