"""Speech features: count, scale, official windowing, and Whisper against the golden vector."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dicetalk.config import Speech
from dicetalk.data.speech import (
    SPEECH_ENCODER,
    LogMelSpeech,
    audio_windows,
    load_speech_encoder,
    whisper_hidden_states,
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


def test_whisper_windows_equal_the_official_code(shared_dir: Path):
    transformers = pytest.importorskip("transformers")
    from dicetalk.models.projection import AudioProjection

    vectors = load_file(shared_dir / "reference/vectors/conditioning.safetensors")
    config = transformers.WhisperConfig(
        vocab_size=64, num_mel_bins=80, d_model=16, encoder_layers=4, encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32, max_source_positions=1500,
        max_target_positions=8, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    encoder = transformers.WhisperModel(config).encoder.eval()
    encoder.load_state_dict(_part(vectors, "whisper_encoder."))
    projection = AudioProjection(10, 5, 16, hidden_dim=48, num_tokens=4, output_dim=32)
    projection.load_state_dict(_part(vectors, "audio_linear."))

    mel = _hash_fill("c.mel", (80, 6000), seed=73)
    tokens = whisper_hidden_states(encoder, [mel[:, :3000], mel[:, 3000:]])[: 2 * 905]
    stacked = vectors["out.hidden_stack_first16"][0].numpy()
    assert np.abs(tokens[:16] - stacked).max() < 1e-4

    for name, ticks in (("len905", 905), ("len51", 51)):
        windows = torch.from_numpy(audio_windows(tokens[: 2 * ticks], ticks // 2))
        with torch.inference_mode():
            audio = projection(windows[None])[0]
        assert (audio - vectors[f"out.{name}.audio"]).abs().max() < 1e-4


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    parts = {name: tensor for name, tensor in tensors.items() if prefix in name}
    return {name.split(prefix, 1)[1]: tensor.float() for name, tensor in parts.items()}


def _hash_fill(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    # The formula of the vectors' own description file.
    x = np.arange(np.prod(shape), dtype=np.uint64) * 0x9E3779B1 + zlib.crc32(f"{seed}:{name}".encode())
    x &= 0xFFFFFFFF
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    x ^= x >> 16
    return (x / 2.0**31 - 1).astype(np.float16).astype(np.float32).reshape(shape)


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
