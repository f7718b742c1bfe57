"""Speech features at 50 tokens a second, and the window of them that each video frame hears.

The encoders share one form, `(tokens, layers, channels)`: Whisper's hidden states as in the official release;
for the demo a log-mel spectrogram alone, or with the features of a small network pretrained on synthetic
speech.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dicetalk.config import Speech
from dicetalk.errors import DicetalkError
from dicetalk.files import read_json

SAMPLE_RATE_HZ = 16_000
TOKENS_PER_SECOND = 50
SAMPLES_PER_TICK = 640  # one video frame at 25 fps = two tokens
TOKENS_PER_TICK = 2

WHISPER_CHUNK_SAMPLES = 480_000  # 30 s, encoded without context across chunks (official `process_audio`)

WHISPER_TINY_SHAPE = (5, 384)  # embedding output and four layers, and their width

SPEECH_ENCODER = "speech_encoder"  # subfolder of a model folder

MEL_FFT = 512
MEL_FLOOR_POWER = 1e-8  # -80 dB
MEL_MEAN_DB, MEL_STD_DB = (
    -36.0,
    20.0,
)  # of recorded speech with the settings below; brings features near N(0, 1)


class SpeechEncoder(Protocol):
    """Turns speech into features at 50 tokens a second."""

    num_layers: int
    channels: int

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Encode mono 16 kHz samples `(num_samples,)` in [-1, 1] to float32 `(tokens, num_layers, channels)`.

        There are two tokens for each whole 40 ms of sound.
        """


class LogMelSpeech:
    """Log-mel spectrogram with one layer; a fixed affine map keeps loudness, which carries emotion."""

    num_layers = 1

    def __init__(self, num_mels: int):
        self.channels = num_mels

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Encode as documented in `SpeechEncoder`."""
        import librosa

        from dicetalk.compute.precision import fixed_threads

        num_tokens = count_tokens(samples)
        hop = SAMPLE_RATE_HZ // TOKENS_PER_SECOND
        with fixed_threads():
            power = librosa.feature.melspectrogram(
                y=samples,
                sr=SAMPLE_RATE_HZ,
                n_fft=MEL_FFT,
                hop_length=hop,
                n_mels=self.channels,
                pad_mode="constant",
            )
        decibels = librosa.power_to_db(power, ref=1.0, amin=MEL_FLOOR_POWER, top_db=None)
        features = (decibels.T[:num_tokens, None] - MEL_MEAN_DB) / MEL_STD_DB
        return features.astype(np.float32)


class PhonemeSpeech:
    """Log-mel spectrogram and, as a second layer, the features of a `PhonemeEncoder` on it.

    Args:
        folder: a `PhonemeEncoder` directory.

    Raises:
        DicetalkError: when there is none.
    """

    num_layers = 2

    def __init__(self, folder: Path):
        from dicetalk.models.phonemes import PhonemeEncoder

        _check_phoneme_encoder(folder)
        self.encoder = PhonemeEncoder.from_pretrained(folder).float().eval()
        self.channels = self.encoder.config.num_mels
        self.spectrogram = LogMelSpeech(self.channels)

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Encode as documented in `SpeechEncoder`."""
        import torch

        log_mels = self.spectrogram.encode(samples)
        with torch.inference_mode():
            features = self.encoder(torch.from_numpy(log_mels[:, 0])[None])[0][0].numpy()
        return np.stack([log_mels[:, 0], features], axis=1)


class WhisperSpeech:
    """All hidden states of a Whisper encoder: embedding output and each layer (whisper-tiny: 5 x 384).

    Args:
        folder: a transformers Whisper directory with safetensors weights.
    """

    def __init__(self, folder: Path):
        from transformers import WhisperFeatureExtractor, WhisperModel

        self.extractor = WhisperFeatureExtractor.from_pretrained(folder)
        self.encoder = WhisperModel.from_pretrained(folder, use_safetensors=True).encoder.eval()
        self.num_layers = self.encoder.config.encoder_layers + 1
        self.channels = self.encoder.config.d_model

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Encode as documented in `SpeechEncoder`; the last 30-s chunk is padded and encoded in full."""
        num_tokens = count_tokens(samples)
        chunks = [
            samples[i : i + WHISPER_CHUNK_SAMPLES] for i in range(0, len(samples), WHISPER_CHUNK_SAMPLES)
        ]
        mels = [self.extractor(chunk, sampling_rate=SAMPLE_RATE_HZ).input_features[0] for chunk in chunks]
        return whisper_hidden_states(self.encoder, mels)[:num_tokens]


def whisper_hidden_states(encoder: Any, mels: Sequence[np.ndarray]) -> np.ndarray:
    """Encode 30-s log-mel chunks `(mels, 3000)` one by one and stack the hidden states.

    Returns:
        float32 `(1500 * chunks, encoder_layers + 1, channels)`.
    """
    import torch

    parameter = next(encoder.parameters())
    states = []
    with torch.inference_mode():
        for mel in mels:
            inputs = torch.as_tensor(mel, dtype=parameter.dtype, device=parameter.device)[None]
            hidden = encoder(inputs, output_hidden_states=True).hidden_states
            states.append(torch.stack(hidden, dim=2)[0].float().cpu().numpy())
    return np.concatenate(states)


def load_speech_encoder(settings: Speech, models: Path) -> SpeechEncoder:
    """Return the encoder that `encode.speech` asks for.

    Args:
        settings: which one.
        models: the backbone's or the trained model's folder, which holds the phoneme network; Whisper comes
            from the weights registry.
    """
    if settings.backend == "logmel":
        return LogMelSpeech(settings.num_mels)
    if settings.backend == "phonemes":
        return PhonemeSpeech(models / SPEECH_ENCODER)
    from dicetalk import weights

    return WhisperSpeech(weights.resolve("whisper-tiny"))


def speech_shape(settings: Speech, models: Path | None) -> tuple[int, int]:
    """Return layers and channels of the features that `load_speech_encoder`'s encoder gives; loads none.

    Args:
        settings: which encoder.
        models: folder that holds the phoneme network; None where there is none.

    Raises:
        DicetalkError: when the phoneme network is asked for and not there.
    """
    if settings.backend == "logmel":
        return LogMelSpeech.num_layers, settings.num_mels
    if settings.backend == "phonemes":
        folder = (models or Path("models/backbone")) / SPEECH_ENCODER
        _check_phoneme_encoder(folder)
        return PhonemeSpeech.num_layers, read_json(folder / "config.json")["num_mels"]
    return WHISPER_TINY_SHAPE


def _check_phoneme_encoder(folder: Path) -> None:
    if not folder.is_dir():
        raise DicetalkError(
            f"{folder} does not exist; `encode.speech.backend: phonemes` needs a backbone that brings a "
            "speech encoder, such as demo-backbone."
        )


def count_tokens(samples: np.ndarray) -> int:
    """Return how many tokens mono samples give.

    Raises:
        DicetalkError: for other than one channel, non-finite values or less than 80 ms, which gives no
            frame at 12.5 fps.
    """
    if samples.ndim != 1:
        raise DicetalkError(f"Speech must be mono, shape (num_samples,); found {samples.shape}.")
    if not np.isfinite(samples).all():
        raise DicetalkError("Speech holds non-finite samples; decode the audio again.")
    if len(samples) < 2 * SAMPLES_PER_TICK:
        raise DicetalkError(
            f"Speech of {len(samples) / SAMPLE_RATE_HZ:.3f} s is too short; 0.08 s is the minimum."
        )
    return TOKENS_PER_TICK * (len(samples) // SAMPLES_PER_TICK)


def pad_tokens(tokens: np.ndarray, window_tokens: int = 10) -> np.ndarray:
    """Put zero tokens around a clip so that every frame has a full window: 4 before and 6 after for 10."""
    before = window_tokens * 2 // 5
    return np.pad(tokens, [(before, window_tokens - before), *[(0, 0)] * (tokens.ndim - 1)])


def window_indices(ticks: np.ndarray, window_tokens: int = 10) -> np.ndarray:
    """Return which padded tokens the frames at 25-fps positions `ticks` hear `(*ticks.shape, window)`."""
    return TOKENS_PER_TICK * np.asarray(ticks)[..., None] + np.arange(window_tokens)


def audio_windows(
    tokens: np.ndarray, num_frames: int, frame_stride: int = 2, window_tokens: int = 10
) -> np.ndarray:
    """Cut the speech window of each video frame (official `dice_talk.test`; about -80 ms to +120 ms).

    Args:
        tokens: `(tokens, layers, channels)` at 50 tokens a second.
        num_frames: video frames at `25 / frame_stride` fps.
        frame_stride: 25-fps ticks between video frames.
        window_tokens: tokens per frame.

    Returns:
        `(num_frames, window_tokens, layers, channels)`; positions outside the clip are zeros.

    Raises:
        DicetalkError: when the clip is shorter than `num_frames`.
    """
    available = len(tokens) // (TOKENS_PER_TICK * frame_stride)
    if num_frames > available:
        raise DicetalkError(
            f"{len(tokens)} speech tokens cover {available} frames; {num_frames} were asked for."
        )
    indices = window_indices(frame_stride * np.arange(num_frames), window_tokens)
    return pad_tokens(tokens, window_tokens)[indices]
