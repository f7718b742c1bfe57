"""The embedder learns emotions, forgets identities, and works with one modality or both."""

from __future__ import annotations

from pathlib import Path

import fake_corpus
import numpy as np
import pytest
import torch
from changes import COMPUTE
from threads import allowed_threads, threads_in_use

from dicetalk.config import TrainEmbedder, load_params
from dicetalk.data.dataset import EncodedClips
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.tracking.tracker import Tracker
from dicetalk.training import embedder_metrics
from dicetalk.training.embedder import ReverseGradient, supervised_contrastive, train_embedder
from dicetalk.training.embedder_metrics import clustering_strength, identity_probe_hits
from dicetalk.training.embeddings import embed_clips
from dicetalk.training.priors import class_priors, load_priors, prior_metrics, save_priors


@pytest.fixture(scope="module")
def settings(repository: Path) -> TrainEmbedder:
    section = load_params(repository / "profiles/demo.yaml").train_embedder
    training = section.training.model_copy(update={"num_steps": 60, "batch_size": 32, "lr": 2e-3})
    sizes = {"embedding_dim": 16, "hidden_dim": 32, "num_layers": 1, "num_heads": 2, "clip_frames": 8}
    return section.model_copy(update=sizes | {"training": training})


@pytest.fixture(scope="module")
def trained(settings: TrainEmbedder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict]:
    root = tmp_path_factory.mktemp("embedder")
    mead = fake_corpus.write_encoded_mead(root / "mead")
    metrics = train_embedder([mead], settings, COMPUTE, root / "run", root / "embedder", Tracker())
    return mead, root / "embedder", metrics


def small_embedder() -> EmotionEmbedder:
    torch.manual_seed(0)
    return EmotionEmbedder(
        1, 6, 136, embedding_dim=16, hidden_dim=32, num_layers=1, num_heads=2, clip_frames=8
    ).eval()


def test_mu_has_zero_mean_and_unit_variance():
    mu = small_embedder()(torch.randn(5, 16, 1, 6), torch.randn(5, 8, 136)).mu
    assert mu.shape == (5, 16)
    assert mu.mean(-1).abs().max() < 1e-5 and (mu.var(-1, unbiased=False) - 1).abs().max() < 1e-3


def test_a_masked_modality_equals_one_that_is_not_given():
    embedder = small_embedder()
    speech, expression = torch.randn(3, 16, 1, 6), torch.randn(3, 8, 136)
    no, yes = torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    assert torch.allclose(embedder(speech, expression, yes, no).mu, embedder(speech, None).mu, atol=1e-5)
    assert torch.allclose(embedder(speech, expression, no, yes).mu, embedder(None, expression).mu, atol=1e-5)
    assert not torch.allclose(embedder(speech, None).mu, embedder(None, expression).mu, atol=1e-2)


@pytest.mark.parametrize("only", ["audio", "video"])
def test_an_embedder_of_one_modality_ignores_the_other(settings: TrainEmbedder, trained, tmp_path, only: str):
    mead = trained[0]
    training = settings.training.model_copy(update={"num_steps": 4})
    few = settings.model_copy(update={"modalities": only, "training": training})
    metrics = train_embedder([mead], few, COMPUTE, tmp_path / "run", tmp_path / "embedder", Tracker())
    assert set(metrics["emotion_accuracy"]) == {only, "features", "chance"}
    assert set(metrics["clustering_strength"]) == {only}
    embedder = EmotionEmbedder.from_pretrained(tmp_path / "embedder").eval()
    clips = EncodedClips([mead], "test")
    assert np.array_equal(embed_clips(embedder, clips), embed_clips(embedder, clips, only))
    absent = {"audio": (None, torch.randn(1, 8, 136)), "video": (torch.randn(1, 16, 1, 6), None)}[only]
    with pytest.raises(ValueError, match=f"reads {only}"):
        embedder(*absent)


def test_long_and_short_clips_embed_to_one_vector():
    embedder = small_embedder()
    expression = torch.randn(20, 136)
    windows = torch.stack([expression[s : s + 8] for s in (0, 6, 12)])
    assert torch.allclose(embedder.embed(None, expression), embedder(None, windows).mu.mean(0), atol=1e-6)
    assert embedder.embed(torch.randn(10, 1, 6), torch.randn(7, 136)).shape == (16,)


def test_contrastive_positives_come_from_other_identities():
    classes, identities = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    by_class = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    by_identity = by_class[[0, 2, 1, 3]]
    assert supervised_contrastive(by_class, classes, identities, 0.1) < 0.01
    assert supervised_contrastive(by_identity, classes, identities, 0.1) > 5
    # A class seen in one identity only has no positives and is skipped.
    alone = supervised_contrastive(by_class, classes, torch.tensor([0, 0, 0, 1]), 0.1)
    assert torch.isfinite(alone)


def test_reversed_gradient():
    x = torch.tensor([2.0], requires_grad=True)
    (3 * ReverseGradient.apply(x)).sum().backward()
    assert x.grad.item() == -3


def test_clustering_strength_grows_with_separation():
    rng = np.random.default_rng(0)
    emotions, identities = np.repeat(np.arange(8), 12), np.tile(np.arange(12), 8)
    centres = rng.normal(size=(8, 5))
    near, far = (scale * centres[emotions] + rng.normal(size=(96, 5)) for scale in (0.0, 5.0))
    assert clustering_strength(near, emotions, identities)["happy"] == pytest.approx(1.0, abs=0.1)
    assert clustering_strength(far, emotions, identities)["happy"] > 2


def test_training_finds_classes_in_unseen_identities(trained: tuple[Path, Path, dict]):
    metrics = trained[2]
    for name in ("audio", "video", "both"):
        assert metrics["class_accuracy"][name] > 0.5, name
    assert metrics["emotion_accuracy"]["both"] > 0.6
    for key in ("identity_accuracy", "held_out_identity_accuracy"):
        assert metrics[key]["mu"] < metrics[key]["features"], key
    assert metrics["identity_accuracy"]["mu"] <= 1.5 * metrics["identity_accuracy"]["chance"]
    for key, by_name in metrics["intervals"].items():
        assert by_name.keys() == metrics[key].keys() - {"chance"}
        people = 4 if key == "identity_accuracy" else 2
        for name, entry in by_name.items():
            assert entry["value"] == metrics[key][name] and entry["identities"] == people
            assert entry["ci95"][0] <= entry["value"] <= entry["ci95"][1]
    assert set(metrics["clustering_strength"]) == {"audio", "video", "both"}


def test_training_again_gives_the_same_weights(trained, settings: TrainEmbedder, tmp_path: Path):
    mead, folder, _ = trained
    train_embedder([mead], settings, COMPUTE, tmp_path / "run", tmp_path / "embedder", Tracker())
    name = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "embedder" / name).read_bytes() == (folder / name).read_bytes()


def test_a_finished_training_is_taken_up_again(trained, settings: TrainEmbedder, tmp_path: Path):
    mead, folder, _ = trained
    train_embedder([mead], settings, COMPUTE, folder.parent / "run", tmp_path / "embedder", Tracker())
    name = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "embedder" / name).read_bytes() == (folder / name).read_bytes()


def test_priors_are_class_means(trained, tmp_path: Path):
    mead, folder, _ = trained
    embedder, clips = EmotionEmbedder.from_pretrained(folder), EncodedClips([mead], "train")
    save_priors(class_priors(embedder, clips), tmp_path / "priors.safetensors")
    priors = load_priors(tmp_path / "priors.safetensors")
    assert len(priors) == 22 + 8
    vectors = embed_clips(embedder, clips)
    happy = (clips.table["emotion"] == "happy").to_numpy()
    assert np.allclose(priors["P/happy"], vectors[happy].mean(0), atol=1e-5)
    metrics = prior_metrics(priors)
    assert np.allclose(np.diag(metrics["cosine"]), 1)
    assert np.mean(metrics["cosine_centred"]) < np.mean(metrics["cosine"])


def test_embedding_many_clips_equals_embedding_each(trained):
    mead, folder, _ = trained
    embedder, clips = EmotionEmbedder.from_pretrained(folder).eval(), EncodedClips([mead], "test")
    for modalities, names in (
        ("audio", ["speech"]),
        ("video", ["expression"]),
        ("both", ["speech", "expression"]),
    ):
        vectors = embed_clips(embedder, clips, modalities)
        features = {name: torch.from_numpy(clips.read(3, name)).float() for name in names}
        alone = embedder.embed(features.get("speech"), features.get("expression"))
        assert np.allclose(vectors[3], alone, atol=1e-5)


def test_a_single_person_is_always_named():
    vectors = np.random.default_rng(0).normal(size=(6, 3))
    assert identity_probe_hits(vectors, np.array(["M001"] * 6), np.arange(6)).all()


def test_probes_are_fitted_on_one_thread_whatever_is_allowed(trained, monkeypatch):
    mead, folder, _ = trained
    seen = []

    def record(train: np.ndarray, test: np.ndarray, train_labels: np.ndarray, test_labels: np.ndarray):
        seen.append(threads_in_use())
        return test_labels == train_labels[0]

    monkeypatch.setattr(embedder_metrics, "probe_hits", record)
    clips = [EncodedClips([mead], split) for split in ("train", "test")]
    with allowed_threads(3):
        embedder_metrics.embedder_metrics(EmotionEmbedder.from_pretrained(folder), *clips, seed=0)
    assert seen and all(threads == {"blas": 1, "torch": 1} for threads in seen)
