"""Closed-form removal hides who it is, keeps what is felt, and leaves the network's form alone."""

from __future__ import annotations

from pathlib import Path

import fake_corpus
import numpy as np
import pytest
import torch
from torch import Tensor

from dicetalk.data.dataset import EmbedderBatches, EncodedClips
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.training.embedder import fit_normalisation
from dicetalk.training.embedder_metrics import identity_probe_hits, probe_hits
from dicetalk.training.identity_removal import (
    erase_identity_from_output,
    erasing_map,
    excerpts,
    fold_inputs,
    subtract_identity_from_inputs,
    without_expected_offset,
)

CLASSES, IDENTITIES, DIM = 10, 12, 30


def people(seed: int, num_identities: int = IDENTITIES) -> tuple[Tensor, Tensor, Tensor]:
    """One vector per class and identity; offsets lie in the same few directions for all seeds."""
    shared, rng = np.random.default_rng(0), np.random.default_rng(seed)
    class_means, directions = shared.normal(size=(CLASSES, DIM)), shared.normal(size=(4, DIM))
    offsets = 2 * rng.normal(size=(num_identities, 4)) @ directions
    classes = np.repeat(np.arange(CLASSES), num_identities)
    identities = np.tile(np.arange(num_identities), CLASSES)
    vectors = class_means[classes] + offsets[identities] + 0.3 * rng.normal(size=(len(classes), DIM))
    return torch.from_numpy(vectors), torch.from_numpy(classes), torch.from_numpy(identities)


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> EmbedderBatches:
    mead = fake_corpus.write_encoded_mead(tmp_path_factory.mktemp("removal") / "mead")
    return EmbedderBatches(EncodedClips([mead], "train"), 8, 0)


@pytest.fixture
def embedder(batches: EmbedderBatches) -> EmotionEmbedder:
    torch.manual_seed(0)
    model = EmotionEmbedder(
        1, 6, 136, embedding_dim=16, hidden_dim=64, num_layers=1, num_heads=2, clip_frames=8
    ).eval()
    fit_normalisation(model, batches)
    return model


def test_offsets_of_people_never_seen_shrink_and_classes_stay():
    seen, classes, identities = people(1)
    new, new_classes, new_identities = people(2)
    matrix = without_expected_offset(seen - seen.mean(0), classes, identities)
    before, after = (new - seen.mean(0)).numpy(), ((new - seen.mean(0)) @ matrix.T).numpy()

    def spread(vectors: np.ndarray, labels: Tensor) -> float:
        means = [vectors[labels.numpy() == label].mean(0) for label in labels.unique()]
        return float(np.var(means, axis=0).sum())

    assert spread(after, new_identities) < 0.2 * spread(before, new_identities)
    assert spread(after, new_classes) > 0.6 * spread(before, new_classes)
    train = ((seen - seen.mean(0)) @ matrix.T).numpy()
    assert probe_hits(train, after, classes.numpy(), new_classes.numpy()).mean() > 0.9


def test_no_linear_probe_finds_what_was_erased():
    vectors, classes, identities = people(1)
    projection, mean = erasing_map(vectors, classes, identities)
    erased = (mean + (vectors - mean) @ projection.T).numpy()
    assert identity_probe_hits(vectors.numpy(), identities.numpy(), classes.numpy()).mean() > 0.9
    assert identity_probe_hits(erased, identities.numpy(), classes.numpy()).mean() < 1.5 / IDENTITIES
    assert torch.allclose(projection @ projection, projection, atol=1e-8)
    assert np.linalg.matrix_rank(np.eye(DIM) - projection.numpy(), tol=1e-6) == IDENTITIES - 1


def test_excerpts_are_every_clip_in_order(batches: EmbedderBatches):
    for place in (0.0, 0.5, 1.0):
        classes = torch.cat([batch.classes for batch in excerpts(batches, place)])
        assert classes.tolist() == batches.classes.tolist()


def test_inputs_lose_identity_while_training_and_after_folding(
    embedder: EmotionEmbedder, batches: EmbedderBatches
):
    names = set(embedder.state_dict())
    batch = batches.draw(0, 16)
    before = embedder(batch.speech, batch.expression).mu
    plain = embedder.expression.input.weight.detach().clone()
    subtract_identity_from_inputs(embedder, batches)
    mapped = embedder(batch.speech, batch.expression).mu
    assert not torch.allclose(before, mapped, atol=1e-2)
    # What training changes stays changed: the map acts on inputs, not on learned weights.
    loss = embedder(batch.speech, batch.expression).mu[:, 0].sum()
    loss.backward()
    original = embedder.expression.input.parametrizations["weight"].original
    assert torch.equal(original, plain) and original.grad.abs().sum() > 0
    fold_inputs(embedder)
    assert set(embedder.state_dict()) == names
    assert torch.allclose(embedder(batch.speech, batch.expression).mu, mapped, atol=1e-5)


def test_mu_of_every_modality_loses_identity(embedder: EmotionEmbedder, batches: EmbedderBatches):
    batch = next(iter(excerpts(batches, 0.5)))
    given = {"video": (None, batch.expression), "both": (batch.speech, batch.expression)}

    def accuracy(inputs: tuple) -> float:
        with torch.no_grad():
            mu = embedder(*inputs).mu.numpy()
        return float(identity_probe_hits(mu, batch.identities.numpy(), batch.classes.numpy()).mean())

    before = {name: accuracy(inputs) for name, inputs in given.items()}
    erase_identity_from_output(embedder, batches)
    for name, inputs in given.items():
        chance = 1 / len(batches.identity_names)
        assert before[name] > 2 * chance, name
        assert accuracy(inputs) < 1.6 * chance, name


def test_weight_zero_means_no_removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path):
    from dicetalk.config import load_params
    from dicetalk.tracking.tracker import Tracker
    from dicetalk.training import embedder as module

    called: list[str] = []
    for name in ("subtract_identity_from_inputs", "erase_identity_from_output"):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, real=real, name=name: (called.append(name), real(*args))
        )
    params = load_params(repository / "profiles/smoke.yaml")
    section, compute = params.train_embedder, params.compute.train_embedder
    training = section.training.model_copy(update={"num_steps": 1, "batch_size": 8})
    sizes = {"embedding_dim": 16, "hidden_dim": 32, "num_layers": 1, "num_heads": 2, "clip_frames": 8}
    mead = fake_corpus.write_encoded_mead(tmp_path / "mead")
    for weight, expected in ((0.0, 0), (0.1, 2)):
        settings = section.model_copy(update=sizes | {"training": training, "identity_weight": weight})
        run_dir, output = tmp_path / f"run{weight}", tmp_path / f"out{weight}"
        module.train_embedder([mead], settings, compute, run_dir, output, Tracker())
        assert len(called) == expected
