"""Pretraining of the demo's speech encoder: which sound is heard in each 20 ms of synthetic speech.

Voices, emotions and sentences vary, so that features tell sounds apart whoever says them and however.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicetalk.config.recipe import PretrainSpeech
from dicetalk.data.speech import TOKENS_PER_SECOND, LogMelSpeech
from dicetalk.labels import CLASSES
from dicetalk.models.phonemes import PhonemeEncoder
from dicetalk.progress import track
from dicetalk.synthetic.sentences import SENTENCES
from dicetalk.synthetic.speech import Voice, synthesize
from dicetalk.synthetic.visemes import VISEMES, Phoneme, sounds

SOUNDS = ("", *sorted(VISEMES))  # silence first
VOICE_VARIANTS = tuple(f"f{n}" for n in range(1, 5)) + tuple(f"m{n}" for n in range(1, 8))
WORDS_PER_UTTERANCE = (4, 9)


class PhonemeObjective:
    """Cross-entropy of the sound at each token of random excerpts.

    Args:
        settings: sizes and seeds.
    """

    def __init__(self, settings: PretrainSpeech):
        self.settings = settings
        self.log_mels, self.labels = utterances(settings)
        torch.manual_seed(settings.training.seed)
        self.encoder = PhonemeEncoder(settings.num_mels, settings.hidden_dim, len(SOUNDS))
        self.modules: dict[str, nn.Module] = {"speech_encoder": self.encoder}

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """One group: everything at `lr`."""
        return [{"params": list(self.encoder.parameters()), "lr": lr}]

    def loss(self, step: int, batch_size: int) -> tuple[Tensor, dict[str, float]]:
        """Return the cross-entropy of a random batch."""
        rng = np.random.default_rng([self.settings.training.seed, step])
        rows = rng.integers(len(self.log_mels) - self.settings.num_validation, size=batch_size)
        log_mels, labels = self._excerpts(rows, rng)
        logits = self.encoder(log_mels)[1].float()
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return loss, {"accuracy": (logits.argmax(-1) == labels).float().mean().item()}

    def validate(self, step: int) -> dict[str, float]:
        """Return the accuracy per token, and among spoken tokens, on utterances never trained on."""
        rows = np.arange(len(self.log_mels) - self.settings.num_validation, len(self.log_mels))
        log_mels, labels = self._excerpts(rows, np.random.default_rng(0))
        hits, spoken = self.encoder(log_mels)[1].argmax(-1) == labels, labels > 0
        return {"accuracy": hits.float().mean().item(), "accuracy_spoken": hits[spoken].float().mean().item()}

    def _excerpts(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return random excerpts of `excerpt_tokens` of utterances: spectrograms and labels."""
        length = self.settings.excerpt_tokens
        starts = [int(rng.integers(len(self.labels[row]) - length + 1)) for row in rows]
        pairs = list(zip(rows, starts, strict=True))
        log_mels = np.stack([self.log_mels[row][start : start + length] for row, start in pairs])
        labels = np.stack([self.labels[row][start : start + length] for row, start in pairs])
        return torch.from_numpy(log_mels), torch.from_numpy(labels)


def utterances(settings: PretrainSpeech) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Speak `num_utterances` random word sequences; number i depends on the seed and i alone.

    Returns:
        Log-mel spectrograms `(tokens, num_mels)` and labels `(tokens,)` into `SOUNDS`; each has pauses around
        and is at least `excerpt_tokens` long.
    """
    words = sorted({word.strip(".?") for sentence in SENTENCES for word in sentence.split()})
    spectrogram, log_mels, labels = LogMelSpeech(settings.num_mels), [], []
    for index in track(range(settings.num_utterances), "speak"):
        rng = np.random.default_rng([settings.training.seed, index])
        text = " ".join(rng.choice(words, rng.integers(*WORDS_PER_UTTERANCE)))
        voice = Voice(str(rng.choice(VOICE_VARIANTS)), float(rng.uniform(0, 99)))
        speech = synthesize(text, voice, *CLASSES[rng.integers(len(CLASSES))])
        before, after = rng.uniform(0.1, 0.6, 2)
        pause = [np.zeros(round(seconds * speech.sample_rate_hz), np.float32) for seconds in (before, after)]
        features = spectrogram.encode(np.concatenate([pause[0], speech.samples, pause[1]]))[:, 0]
        missing = max(settings.excerpt_tokens - len(features), 0)
        features = np.pad(features, [(0, missing), (0, 0)], mode="edge")
        log_mels.append(features)
        labels.append(sound_labels(speech.phonemes, before, len(features)))
    return log_mels, labels


def sound_labels(phonemes: tuple[Phoneme, ...], start_seconds: float, num_tokens: int) -> np.ndarray:
    """Return the index into `SOUNDS` of what is heard in the middle of each token `(num_tokens,)`."""
    middles = (np.arange(num_tokens) + 0.5) / TOKENS_PER_SECOND - start_seconds
    labels = np.zeros(num_tokens, np.int64)
    for letter, start, end in sounds(phonemes):
        labels[(middles >= start) & (middles < end)] = SOUNDS.index(letter)
    return labels
