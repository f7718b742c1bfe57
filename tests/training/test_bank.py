"""The bank uses its codes and classifies unseen identities through them."""

from __future__ import annotations

import json
from pathlib import Path

import fake_corpus
import numpy as np
import pandas as pd
import pytest
import torch
from changes import COMPUTE

from dicetalk.config import LearnBank, load_params
from dicetalk.data.dataset import EncodedClips
from dicetalk.errors import DicetalkError
from dicetalk.labels import CLASSES
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.models.emotion import EmotionModel
from dicetalk.tracking.tracker import Tracker
from dicetalk.training.bank import BankObjective, ClipPriors, bank_attention, code_usage, learn_bank
from dicetalk.training.priors import class_priors, clip_priors, label_priors, prior_name


@pytest.fixture(scope="module")
def settings(repository: Path) -> LearnBank:
    section = load_params(repository / "profiles/demo.yaml").learn_bank
    training = section.training.model_copy(update={"num_steps": 80, "lr": 3e-3})
    return section.model_copy(update={"dim": 32, "num_codes": 32, "training": training})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bank")
    fake_corpus.write_encoded_mead(root / "mead")
    (root / "backbone/unet").mkdir(parents=True)
    config = {"cross_attention_dim": 32, "block_out_channels": [16, 24]}
    (root / "backbone/unet/config.json").write_text(json.dumps(config))
    return root


@pytest.fixture(scope="module")
def embedder() -> EmotionEmbedder:
    torch.manual_seed(0)  # untrained: the fake corpus shows its classes through a random network as well
    return EmotionEmbedder(
        1, 6, 136, embedding_dim=16, hidden_dim=32, num_layers=1, num_heads=2, clip_frames=10
    )


def learn(root: Path, embedder: EmotionEmbedder, settings: LearnBank, output: Path) -> dict:
    priors = class_priors(embedder, EncodedClips([root / "mead"], "train"))
    return learn_bank(
        [root / "mead"],
        embedder,
        priors,
        "embedding",
        root / "backbone",
        settings,
        COMPUTE,
        output / "run",
        output / "bank",
        Tracker(),
    )


def test_learning_fills_the_bank(root: Path, embedder: EmotionEmbedder, settings: LearnBank, tmp_path: Path):
    metrics = learn(root, embedder, settings, tmp_path)
    bank = EmotionModel.from_pretrained(tmp_path / "bank")
    assert bank.config.classifier_in_channels == 24
    assert metrics["training_identities"]["codes_used"] > 16
    assert 1 < metrics["training_identities"]["code_perplexity"] <= 32
    for mode in ("retrieval", "whole_bank"):
        assert metrics["training"][f"class_accuracy_{mode}"] > 3 / 22, mode
    usage = pd.read_parquet(tmp_path / "bank/code_usage.parquet")
    assert len(usage) == 8 * 32
    assert (usage.groupby("code")["count"].sum() > 0).sum() == metrics["training_identities"]["codes_used"]
    correlation = np.array(metrics["emotion_correlation"]["cosine_centred"])
    assert correlation.shape == (8, 8) and np.allclose(correlation, correlation.T)


def test_a_bank_of_another_width_is_refused(
    root: Path, embedder: EmotionEmbedder, settings: LearnBank, tmp_path
):
    with pytest.raises(DicetalkError, match="set learn_bank.dim"):
        learn(root, embedder, settings.model_copy(update={"dim": 64}), tmp_path)


def test_unused_codes_move_onto_priors(root: Path, embedder: EmotionEmbedder, settings: LearnBank):
    priors = ClipPriors(embedder, EncodedClips([root / "mead"], "train"), "embedding")
    model = EmotionModel(16, 32, 32, 4, 4, 32, 24)
    objective = BankObjective(model, priors, priors, settings)
    before = code_usage(model, priors.priors)["codes_used"]
    objective.restart_unused_codes(np.random.default_rng(0))
    assert code_usage(model, priors.priors)["codes_used"] > max(before, 16)


def test_without_a_bank_the_projection_learns_alone(root, embedder, settings, tmp_path: Path):
    metrics = learn(root, embedder, settings.model_copy(update={"use_bank": False}), tmp_path)
    model = EmotionModel.from_pretrained(tmp_path / "bank")
    assert not hasattr(model, "codebook") and set(metrics) == {"training"}
    assert metrics["training"]["class_accuracy_whole_bank"] > 3 / 22
    assert "codes_used" not in metrics["training"]


def test_label_priors_say_the_class_and_nothing_else(root: Path, embedder: EmotionEmbedder):
    wide = EmotionEmbedder(1, 6, 136, embedding_dim=24, hidden_dim=32, num_layers=1, num_heads=2)
    clips = EncodedClips([root / "mead", fake_corpus.write_encoded_hdtf(root / "hdtf")], "train")
    vectors, priors = clip_priors("label", wide, clips), label_priors(24)
    for row, clip in clips.table.iterrows():
        labelled = isinstance(clip["emotion"], str)
        expected = priors[f"P/{clip['emotion']}/{clip['level']}"] if labelled else np.zeros(24)
        assert np.array_equal(vectors[row], expected), clip["clip_id"]
    codes = np.stack([priors[prior_name(*pair)] for pair in CLASSES])
    assert np.allclose(codes.mean(1), 0, atol=1e-6) and np.allclose(codes.std(1), 1, atol=1e-6)
    assert set(priors) == set(class_priors(wide, EncodedClips([root / "mead"], "train")))
    assert ClipPriors(wide, EncodedClips([root / "mead"], "train"), "label").priors.shape[1] == 1
    with pytest.raises(DicetalkError, match="embedding_dim must be >= 22; it is 16"):
        clip_priors("label", embedder, clips)


def test_bank_attention_is_a_distribution_over_codes():
    model = EmotionModel(16, 32, 12, 4, 4, 32, 24).eval()
    attention = bank_attention(model, torch.randn(3, 16))
    assert attention.shape == (3, 12) and torch.allclose(attention.sum(-1), torch.ones(3))
    # Equal codes share the attention equally
    model.codebook.codebook.weight.data[:] = 0.1
    assert torch.allclose(bank_attention(model, torch.randn(3, 16)), torch.full((3, 12), 1 / 12), atol=1e-6)
