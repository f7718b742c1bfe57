"""Every term of the embedder's loss against an independent implementation, with its sign and its weight."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from dicetalk.config import TrainEmbedder, load_params
from dicetalk.data.dataset import EmbedderBatch
from dicetalk.models.embedder import EmbedderOutput, EmotionEmbedder, ModalityEncoder, per_frame_speech
from dicetalk.training.embedder import (
    EmbedderObjective,
    fit_normalisation,
    kl_to_standard_normal,
    supervised_contrastive,
)
from dicetalk.training.embedder_metrics import clustering_strength, identity_probe_hits, plain_features

CLASSES = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])
IDENTITIES = torch.tensor([0, 1, 1, 0, 2, 0, 1, 2])
DIM = 3


class Embedder(nn.Module):
    """Says the same Gaussians whatever it is given, and keeps what that was."""

    device = torch.device("cpu")

    def __init__(self, modalities: str = "both") -> None:
        super().__init__()
        torch.manual_seed(1)
        self.config = SimpleNamespace(embedding_dim=DIM, modalities=modalities)
        self.mu = nn.Parameter(torch.randn(len(CLASSES), DIM))
        self.log_variance = nn.Parameter(torch.randn(len(CLASSES), DIM))
        self.given: list[tuple] = []

    def forward(self, *given: Tensor | None) -> EmbedderOutput:
        self.given.append(given)
        repeats = -(-max(len(x) for x in given if x is not None) // len(CLASSES))
        return EmbedderOutput(self.mu.repeat(repeats, 1), self.log_variance.repeat(repeats, 1))


class Batches:
    identity_names = np.array(["A", "B", "C"])

    def draw(self, step: int, batch_size: int, part: slice = slice(None)) -> EmbedderBatch:
        self.drawn = step, batch_size
        repeats = batch_size // len(CLASSES)
        return EmbedderBatch(
            torch.ones(batch_size, 4, 1, 2),
            torch.full((batch_size, 2, 5), 2.0),
            CLASSES.repeat(repeats),
            IDENTITIES.repeat(repeats),
        )


@pytest.fixture
def settings(repository: Path) -> TrainEmbedder:
    section = load_params(repository / "profiles/demo.yaml").train_embedder
    return section.model_copy(
        update={"hidden_dim": 8, "temperature": 0.5, "kl_weight": 0.0, "identity_weight": 0.0}
    )


def build(settings: TrainEmbedder, modalities: str = "both", **changes: float) -> EmbedderObjective:
    changed = settings.model_copy(update=changes | {"modalities": modalities})
    return EmbedderObjective(Embedder(modalities), Batches(), Batches(), changed)


def contrastive_by_hand(z: np.ndarray, classes, identities, temperature: float) -> float:
    """Khosla et al. 2020, equation 2, over pairs; same class and identity counts neither way."""
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    losses = []
    for i in range(len(z)):
        others = [
            j for j in range(len(z)) if not (classes[i] == classes[j] and identities[i] == identities[j])
        ]
        positives = [j for j in others if classes[i] == classes[j]]
        if positives:
            total = sum(math.exp(z[i] @ z[j] / temperature) for j in others)
            terms = [-math.log(math.exp(z[i] @ z[p] / temperature) / total) for p in positives]
            losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_contrastive_loss_equals_the_published_formula(temperature: float) -> None:
    z = torch.randn(len(CLASSES), DIM, generator=torch.Generator().manual_seed(0))
    expected = contrastive_by_hand(z.double().numpy(), CLASSES.tolist(), IDENTITIES.tolist(), temperature)
    found = supervised_contrastive(z, CLASSES, IDENTITIES, temperature).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_kl_is_that_of_two_gaussians() -> None:
    mu, log_variance = torch.randn(4, 3), torch.randn(4, 3)
    normal = Normal(mu, (0.5 * log_variance).exp())
    expected = kl_divergence(normal, Normal(torch.zeros(4, 3), torch.ones(4, 3))).mean()
    found = kl_to_standard_normal(EmbedderOutput(mu, log_variance))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_samples_have_the_variance_that_is_said() -> None:
    output = EmbedderOutput(torch.full((20_000, 1), 3.0), torch.full((20_000, 1), math.log(0.25)))
    sample = output.sample()
    assert sample.mean().item() == pytest.approx(3.0, abs=0.02)
    assert sample.std().item() == pytest.approx(0.5, abs=0.02)


def test_variances_stay_between_e_to_the_minus_5_and_e_to_the_5() -> None:
    embedder = EmotionEmbedder(
        1, 4, 3, embedding_dim=2, hidden_dim=8, num_layers=1, num_heads=1, clip_frames=4
    )
    with torch.no_grad():
        embedder.log_variance.weight.zero_()
        embedder.log_variance.bias.copy_(torch.tensor([-40.0, 40.0]))
    output = embedder(None, torch.randn(3, 4, 3))
    assert output.log_variance.tolist() == [[-5.0, 5.0]] * 3


@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.3, 0.0), (0.0, 0.7), (2.0, 3.0)])
def test_the_loss_is_the_weighted_sum_of_its_terms(
    settings: TrainEmbedder, weights: tuple[float, float]
) -> None:
    objective = build(settings, kl_weight=weights[0], identity_weight=weights[1], modality_dropout=0.0)
    embedder = objective.embedder
    torch.manual_seed(4)
    loss, logged = objective.loss(9, len(CLASSES))
    torch.manual_seed(4)
    torch.rand(len(CLASSES))  # which modalities are dropped
    sample = embedder.mu + torch.exp(embedder.log_variance).sqrt() * torch.randn(len(CLASSES), DIM)
    contrastive = contrastive_by_hand(
        sample.detach().double().numpy(), CLASSES.tolist(), IDENTITIES.tolist(), settings.temperature
    )
    normal = Normal(embedder.mu, (0.5 * embedder.log_variance).exp())
    kl = kl_divergence(normal, Normal(0.0, 1.0)).mean().item()
    chances = objective.identity_classifier(embedder.mu).softmax(-1)
    identity = -chances[torch.arange(len(CLASSES)), IDENTITIES].log().mean().item()
    assert logged["contrastive"] == pytest.approx(contrastive, rel=1e-4)
    assert logged["kl"] == pytest.approx(kl, rel=1e-4)
    assert logged["identity"] == pytest.approx(identity, rel=1e-4)
    assert loss.item() == pytest.approx(contrastive + weights[0] * kl + weights[1] * identity, rel=1e-4)
    assert objective.train_batches.drawn == (9, len(CLASSES)) and 0 <= logged["data_seconds"] < 60


def test_the_classifier_learns_identities_and_the_embedder_unlearns_them(settings: TrainEmbedder) -> None:
    objective = build(settings, identity_weight=2.0)
    without = build(settings, identity_weight=0.0)
    without.identity_classifier.load_state_dict(objective.identity_classifier.state_dict())
    gradients = []
    for each in (objective, without):
        torch.manual_seed(0)
        each.loss(0, len(CLASSES))[0].backward()
        gradients.append(each.embedder.mu.grad)
    mu = objective.embedder.mu.detach().requires_grad_()
    plain = nn.functional.cross_entropy(objective.identity_classifier(mu), IDENTITIES)
    weight = objective.identity_classifier[0].weight
    to_mu, to_weight = torch.autograd.grad(plain, [mu, weight])
    assert torch.allclose(gradients[0] - gradients[1], -2.0 * to_mu, atol=1e-6)
    assert torch.allclose(weight.grad, 2.0 * to_weight, atol=1e-6)


def test_each_modality_is_dropped_at_its_chance_and_never_both(settings: TrainEmbedder) -> None:
    objective = build(settings, modality_dropout=0.2)
    torch.manual_seed(0)
    objective.loss(0, 1600)
    speech, expression, heard, seen = objective.embedder.given[-1]
    assert speech.unique().item() == 1.0 and expression.unique().item() == 2.0
    assert heard.float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert seen.float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert (heard | seen).all()


@pytest.mark.parametrize("only", ["audio", "video"])
def test_nothing_is_dropped_of_a_single_modality(settings: TrainEmbedder, only: str) -> None:
    objective = build(settings, only, modality_dropout=0.4)
    objective.loss(0, 400)
    assert objective.embedder.given[-1][2].all() and objective.embedder.given[-1][3].all()


def test_validation_gives_one_modality_and_both(settings: TrainEmbedder) -> None:
    objective = build(settings)
    metrics = objective.validate(0)
    assert metrics.keys() == {"contrastive_audio", "contrastive_video", "contrastive_both"}
    given = [tuple(x is not None for x in pair) for pair in objective.embedder.given]
    assert given == [(True, False), (False, True), (True, True)]
    assert all(
        x is None or x.unique().item() == i + 1
        for pair in objective.embedder.given
        for i, x in enumerate(pair)
    )
    repeats = 4 * settings.training.batch_size // len(CLASSES)
    mu = objective.embedder.mu.detach().double().repeat(repeats, 1).numpy()
    labels = CLASSES.repeat(repeats).tolist(), IDENTITIES.repeat(repeats).tolist()
    assert metrics["contrastive_both"] == pytest.approx(contrastive_by_hand(mu, *labels, 0.5), rel=1e-4)
    assert objective.test_batches.drawn == (10**9, 4 * settings.training.batch_size)


def test_everything_is_trained_at_the_rate_that_is_asked_for(settings: TrainEmbedder) -> None:
    objective = build(settings)
    (group,) = objective.parameter_groups(0.25)
    assert group["lr"] == 0.25
    modules = (objective.embedder, objective.identity_classifier)
    assert [id(p) for p in group["params"]] == [id(p) for m in modules for p in m.parameters()]


def test_inputs_are_standardised_by_the_training_clips() -> None:
    embedder = EmotionEmbedder(
        1, 2, 3, embedding_dim=4, hidden_dim=8, num_layers=1, num_heads=2, clip_frames=2
    )
    speech = torch.tensor([[[[1.0, 0]], [[5.0, 0]], [[3.0, 0]], [[5.0, 0]]]])  # two tokens a frame
    expression = torch.tensor([[[0.0, 4.0, 1.0], [2.0, 8.0, 1.0]]])

    class Clips:
        num_frames = np.array([2])
        clips = [0]

        def load(self, rows: np.ndarray, starts: np.ndarray) -> SimpleNamespace:
            assert rows.tolist() == [0] and starts.tolist() == [0]
            return SimpleNamespace(speech=speech, expression=expression)

    fit_normalisation(embedder, Clips())
    assert embedder.speech.mean.tolist() == [2.0, 0.0, 5.0, 0.0]
    assert embedder.speech.std.tolist() == pytest.approx([math.sqrt(2), 1e-3, 1e-3, 1e-3])
    assert embedder.expression.mean.tolist() == [1.0, 6.0, 1.0]
    assert embedder.expression.std.tolist() == pytest.approx([math.sqrt(2), math.sqrt(8), 1e-3])


def test_an_encoder_standardises_and_knows_the_order_of_frames() -> None:
    torch.manual_seed(0)
    encoder = ModalityEncoder(2, 8, 1, 2, 0.0).eval()
    features = torch.randn(1, 4, 2)
    plain = encoder(features, None)
    encoder.mean.fill_(3.0)
    encoder.std.fill_(2.0)
    assert torch.allclose(encoder(features * 2.0 + 3.0, None), plain, atol=1e-5)
    backwards = encoder((features * 2.0 + 3.0).flip(1), None)
    assert not torch.allclose(backwards.flip(1), plain, atol=1e-2)


def test_speech_of_a_frame_is_its_two_tokens() -> None:
    speech = torch.arange(2 * 4 * 1 * 3.0).reshape(2, 4, 1, 3)
    assert per_frame_speech(speech)[0].tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


def test_windows_cover_a_clip_evenly() -> None:
    embedder = EmotionEmbedder(
        1, 1, 2, embedding_dim=4, hidden_dim=8, num_layers=1, num_heads=2, clip_frames=4
    )
    speech = torch.arange(22.0).reshape(22, 1, 1)
    expression = torch.arange(10.0)[:, None].expand(10, 2)
    heard, seen = embedder.windows(speech, expression)  # 10 frames: windows start at 0, 3 and 6
    assert seen[:, :, 0].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert heard.flatten(1).tolist() == [[*range(8)], [*range(6, 14)], [*range(12, 20)]]
    assert embedder.windows(None, expression[:3])[1].shape == (1, 3, 2)


def test_clustering_strength_of_four_clips() -> None:
    vectors = np.array([[0.0], [1.0], [4.0], [7.0]])
    emotions, identities = np.array([0, 0, 1, 1]), np.array(["a", "b", "a", "b"])
    # Angry: 1 apart, and 0-7 and 1-4 to the others of other people: (7 + 3) / 2. Contempt: 3 apart.
    strengths = clustering_strength(vectors, emotions, identities)
    assert strengths == {"angry": pytest.approx(5.0), "contempt": pytest.approx(5.0 / 3.0)}
    assert clustering_strength(vectors[:3], emotions[:3], identities[:3]) == {"angry": pytest.approx(3.0)}


def test_identity_probes_are_asked_about_classes_they_were_not_fitted_on() -> None:
    # Persons differ by sign, in odd classes the other way round: a probe of the other half is always wrong.
    identities = np.array(["a", "b"] * 8)
    classes = np.repeat(np.arange(8), 2)
    sign = np.where(identities == "a", 1.0, -1.0) * np.where(classes % 2 == 0, 1.0, -1.0)
    assert not identity_probe_hits(sign[:, None], identities, classes).any()
    assert identity_probe_hits(
        np.abs(sign[:, None]) * np.where(identities == "a", 1, -1)[:, None], identities, classes
    ).all()


def test_plain_features_are_means_and_deviations_over_time() -> None:
    class Clips:
        arrays = {
            "speech": np.array([[[1.0, 2.0]], [[3.0, 2.0]]]),
            "expression": np.array([[0.0], [8.0]]),
        }

        def __len__(self) -> int:
            return 1

        def read(self, row: int, name: str) -> np.ndarray:
            return self.arrays[name]

    assert plain_features(Clips()).tolist() == [[2.0, 2.0, 1.0, 0.0, 4.0, 4.0]]
