"""What the demo's speech encoder is trained on."""

from __future__ import annotations

import numpy as np
import pytest

from dicetalk.config.recipe import load_pretrain_params
from dicetalk.synthetic.visemes import Phoneme
from dicetalk.training.phonemes import SOUNDS, PhonemeObjective, sound_labels


def test_labels_name_the_sound_in_the_middle_of_each_token():
    phonemes = (Phoneme("m", 0.0, 0.04), Phoneme("aɪ", 0.04, 0.12))
    labels = sound_labels(phonemes, start_seconds=0.02, num_tokens=8)
    assert [SOUNDS[label] for label in labels] == ["", "m", "m", "a", "a", "ɪ", "ɪ", ""]


def test_utterances_repeat_and_are_learned(repository):
    settings = load_pretrain_params(repository / "pretrained/demo-backbone/params.yaml").speech
    settings = settings.model_copy(update={"num_utterances": 6, "num_validation": 2})
    first, again = PhonemeObjective(settings), PhonemeObjective(settings)
    assert all(np.array_equal(a, b) for a, b in zip(first.log_mels, again.log_mels, strict=True))
    assert all((labels > 0).mean() > 0.3 for labels in first.labels)  # speech, not silence
    loss = first.loss(0, 4)[0]
    assert loss.item() == pytest.approx(np.log(len(SOUNDS)), rel=0.2)  # untrained: as good as guessing
    loss.backward()
    assert first.validate(0).keys() == {"accuracy", "accuracy_spoken"}
