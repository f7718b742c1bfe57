from __future__ import annotations

import numpy as np
import pytest
import torch
from threads import allowed_threads, threads_in_use
from toy_clips import toy_clip, toy_clips

from dicetalk.config import load_params
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.mfcc import mfcc
from dicetalk.evaluation.store import load_network
from dicetalk.labels import EMOTIONS
from dicetalk.training import evaluator_objectives, evaluators
from dicetalk.training.augmentation import augment
from dicetalk.training.evaluator_objectives import (
    EmotionObjective,
    SecondEmotionObjective,
    SyncObjective,
    intensity,
)
from dicetalk.training.evaluators import OBJECTIVES, train_evaluators

NAMES = {
    "emotion": "in-domain-emotion",
    "emotion_second": "in-domain-emotion-gradients",
    "identity": "in-domain-identity",
    "sync": "in-domain-sync",
}


@pytest.fixture
def settings(repository):
    params = load_params(repository / "profiles/demo.yaml")
    quick = {"num_steps": 40, "batch_size": 16, "warmup_steps": 5, "lr": 3.0e-3}
    section = params.evaluators
    kinds = {kind: getattr(section, kind).model_copy(update=quick) for kind in OBJECTIVES}
    return section.model_copy(update=kinds), params.compute.evaluators


@pytest.fixture
def toy_data(monkeypatch):
    clips = toy_clips()
    by_split = {
        "train": [clip for clip in clips if clip.identity not in ("T6", "T7")],
        "test": [clip for clip in clips if clip.identity in ("T6", "T7")],
    }
    monkeypatch.setattr(evaluators, "load_processed", lambda folders, split, size_px: by_split[split])


def test_networks_learn_and_are_stored(settings, toy_data, tmp_path):
    results = train_evaluators(*settings, [], tmp_path / "out", tmp_path / "runs")
    assert results["emotion"]["accuracy"] > 3 / 8
    assert results["emotion_second"]["accuracy"] > 2 / 8
    assert results["identity"]["auc"] > 0.7
    assert results["sync"]["sync_d"] < results["sync"]["wrong_audio_sync_d"]
    for kind, result in results.items():
        stored = load_network(tmp_path / "out", kind)
        assert (stored.name, stored.sha256) == (result["name"], result["sha256"])
        assert stored.name == NAMES[kind]
        assert (tmp_path / "out" / f"{kind}_curves.csv").read_text().startswith("step,")


def test_same_data_gives_the_same_bits_and_other_data_others(settings, toy_data, tmp_path, monkeypatch):
    section, compute = settings
    short = {kind: getattr(section, kind).model_copy(update={"num_steps": 2}) for kind in OBJECTIVES}
    section = section.model_copy(update=short)
    first = train_evaluators(section, compute, [], tmp_path / "a", tmp_path / "runs_a")
    assert train_evaluators(section, compute, [], tmp_path / "b", tmp_path / "runs_b") == first
    changed = [toy_clip(identity, emotion, take=2) for identity in range(2) for emotion in EMOTIONS]
    monkeypatch.setattr(evaluators, "load_processed", lambda folders, split, size_px: changed)
    second = train_evaluators(section, compute, [], tmp_path / "c", tmp_path / "runs_c")
    assert second["emotion"]["sha256"] != first["emotion"]["sha256"]


def test_sound_is_analysed_on_one_thread_whatever_is_allowed(settings, toy_data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(evaluators, "OBJECTIVES", {"sync": SyncObjective})
    monkeypatch.setattr(
        evaluator_objectives, "mfcc", lambda audio: seen.append(threads_in_use()) or mfcc(audio)
    )
    section, compute = settings
    section = section.model_copy(update={"sync": section.sync.model_copy(update={"num_steps": 1})})
    with allowed_threads(3):
        train_evaluators(section, compute, [], tmp_path / "out", tmp_path / "runs")
    assert seen and all(threads == {"blas": 1, "torch": 1} for threads in seen)


def test_published_networks_are_refused(settings, tmp_path):
    with pytest.raises(DicetalkError, match="in-domain"):
        section, compute = settings
        section = section.model_copy(update={"source": "published"})
        train_evaluators(section, compute, [], tmp_path, tmp_path)


def test_an_emotion_without_clips_is_refused():
    with pytest.raises(DicetalkError, match="sad"):
        EmotionObjective([clip for clip in toy_clips() if clip.emotion != "sad"], toy_clips(), seed=0)


def test_a_batch_depends_on_seed_and_step_only():
    objective = SyncObjective(toy_clips(), toy_clips(), seed=3)
    losses = []
    for step in (5, 6, 5):
        torch.manual_seed(step)
        losses.append(objective.loss(step, 16)[0].item())
    assert losses[0] == losses[2] != losses[1]


def test_augmentation_treats_the_frames_of_a_window_alike():
    torch.manual_seed(0)
    window = torch.rand(1, 1, 3, 64, 64).expand(2, 5, 3, 64, 64) * 2 - 1
    changed = augment(window.clone(), tint=0.3)
    between_frames = (changed[0, 0] - changed[0, 1]).abs().mean().item()
    between_samples = (changed[0, 0] - changed[1, 0]).abs().mean().item()
    assert changed.shape == window.shape and np.isfinite(changed.numpy()).all()
    assert between_frames < 0.1 < between_samples


def test_strength_is_learnt_from_the_labelled_levels():
    neutral, happy = toy_clip(0, "neutral"), toy_clip(0, "happy")
    assert (intensity(neutral), intensity(happy)) == (0.0, 3.0)  # neutral's level 1 is no intensity
    objective = SecondEmotionObjective(toy_clips(), [neutral, happy], seed=1)
    with torch.no_grad():
        objective.network.strength.weight.zero_()
        objective.network.strength.bias.fill_(1.0)
        objective.network.eval()
        error = objective.validate(0)["strength_error"]
    assert error == pytest.approx((1.0 + 2.0) / 2)
