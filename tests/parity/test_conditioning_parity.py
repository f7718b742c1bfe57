"""From log-mel speech and an emotion prior to tokens, as the official `test()` computes them."""

from __future__ import annotations

import pytest
import torch
from hashed_tensors import hashed
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from dicetalk.data.speech import TOKENS_PER_TICK, audio_windows, count_tokens, whisper_hidden_states
from dicetalk.models.emotion import EmotionModel
from dicetalk.models.projection import AudioProjection

MELS_PER_CHUNK = 3000


@pytest.fixture(scope="module")
def golden_conditioning(vectors):
    return vectors("conditioning")


@pytest.fixture(scope="module")
def hidden_states(golden_conditioning):
    """All hidden states of both 30-s chunks `(3000, layers, channels)`."""
    meta = golden_conditioning.meta
    encoder = WhisperModel(WhisperConfig(**meta["whisper_config"])).encoder.eval()
    encoder.load_state_dict(golden_conditioning.weights("whisper_encoder."))
    mel = hashed("c.mel", (80, 2 * MELS_PER_CHUNK), meta["seeds"]["mel"]).numpy()
    return whisper_hidden_states(encoder, [mel[:, :MELS_PER_CHUNK], mel[:, MELS_PER_CHUNK:]])


def test_hidden_states(golden_conditioning, hidden_states, close):
    close(torch.from_numpy(hidden_states[:16]), golden_conditioning["out.hidden_stack_first16"][0])
    chunk = hidden_states[: len(hidden_states) // 2]
    close(torch.from_numpy(chunk[-4:]), golden_conditioning["out.hidden_stack_last4"][0])


@pytest.mark.parametrize("case", ["len905", "len51"])
@torch.no_grad()
def test_audio_tokens(golden_conditioning, hidden_states, close, case):
    config = golden_conditioning.meta["audio_linear_config"]
    projection = AudioProjection(
        config["seq_len"],
        config["blocks"],
        config["channels"],
        config["intermediate_dim"],
        config["context_tokens"],
        config["output_dim"],
    )
    projection.load_state_dict(golden_conditioning.weights("audio_linear."))
    ticks = int(case.removeprefix("len"))
    windows = audio_windows(hidden_states[: TOKENS_PER_TICK * ticks], ticks // 2, 2, config["seq_len"])
    close(projection(torch.from_numpy(windows)[None])[0], golden_conditioning[f"out.{case}.audio"])
    close(projection.null_tokens()[0], golden_conditioning[f"out.{case}.uncond_audio"])


@pytest.mark.parametrize("retrieval", [True, False])
@torch.no_grad()
def test_emotion_tokens(golden_conditioning, vectors, close, retrieval):
    config = vectors("emotion_small").meta["config"]
    model = EmotionModel(
        config["prior_dim"],
        config["width"],
        config["bank"],
        config["tokens"],
        config["heads"],
        config["intermediate_dim"],
        config["classifier_input"],
    ).eval()
    model.load_state_dict(golden_conditioning.weights("emo_model."))
    name = f"out.retrieval_{str(retrieval).lower()}"
    tokens = model(golden_conditioning["in.emo_prior"].flatten(1)[:, None], retrieval=retrieval).tokens
    close(tokens[0], golden_conditioning[f"{name}.emo"])
    close(model.null_tokens(retrieval)[0], golden_conditioning[f"{name}.uncond_emo"])


def test_mel_and_number_of_frames(vectors, close):
    reference = vectors("preprocess")
    case = reference.meta["cases"]["audio"]
    samples = reference["in.pcm16"].numpy().astype("float32") / 32768
    assert len(samples) == case["samples"] and count_tokens(samples) == TOKENS_PER_TICK * case["audio_len"]
    mel = WhisperFeatureExtractor()(samples, sampling_rate=16_000, return_tensors="pt").input_features[0]
    assert list(mel.shape) == case["mel_shape"]
    close(mel[:, :160], reference["out.mel_first160"], atol=1e-4)
