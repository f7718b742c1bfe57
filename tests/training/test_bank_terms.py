"""The bank's loss, its restarts, and what is told of codes, priors and classes, by hand."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dicetalk.config import LearnBank, load_params
from dicetalk.labels import CLASSES, EMOTIONS
from dicetalk.models.emotion import EmotionBank, EmotionModel
from dicetalk.training import priors
from dicetalk.training.bank import BankObjective, ClipPriors, bank_attention, code_usage, emotion_correlation
from dicetalk.training.bank_usage import usage_by_emotion
from dicetalk.training.priors import class_priors, clip_priors, cosine_matrix, label_priors, prior_metrics


def small_bank(codes: list[list[float]]) -> EmotionBank:
    """A bank that reads priors as they are."""
    found = EmotionBank(2, 2, len(codes))
    with torch.no_grad():
        found.fc.weight.copy_(torch.eye(2))
        found.fc.bias.zero_()
        found.codebook.weight.copy_(torch.tensor(codes))
    return found


def test_a_prior_is_replaced_by_its_nearest_code_at_this_loss() -> None:
    found = small_bank([[0.0, 0.0], [10.0, 0.0], [0.0, 8.0]])
    prior = torch.tensor([[[1.0, 2.0], [7.0, 0.0]]], requires_grad=True)
    code, loss, indices = found(prior)
    assert indices.tolist() == [[0, 1]]
    assert code.tolist() == [[[0.0, 0.0], [10.0, 0.0]]]
    # Squared errors 1, 4, 9 and 0, their mean 3.5; commitment a quarter of it.
    assert loss.item() == pytest.approx(3.5 * 1.25)
    loss.backward(retain_graph=True)
    # Codes: 2 (code - z) / 4. Priors through `fc`: 0.25 * 2 (z - code) / 4.
    assert found.codebook.weight.grad.tolist() == [[-0.5, -1.0], [1.5, 0.0], [0.0, 0.0]]
    assert prior.grad.tolist() == [[[0.125, 0.25], [-0.375, 0.0]]]
    prior.grad = None
    code.sum().backward()
    assert prior.grad.tolist() == [[[1.0, 1.0], [1.0, 1.0]]]  # straight through


def test_usage_counts_codes_and_their_perplexity() -> None:
    model = SimpleNamespace(codebook=small_bank([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]))
    model.config = SimpleNamespace(num_codes=3)
    found = torch.tensor([[0.0, 1.0], [1.0, 0.0], [8.0, 0.0], [0.5, 0.0]])
    usage = code_usage(model, found[:, None])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert usage == {"codes_used": 2, "code_perplexity": pytest.approx(math.exp(entropy))}
    assert code_usage(model, found[1:3])["code_perplexity"] == pytest.approx(2.0)
    classes = torch.tensor(
        [CLASSES.index(pair) for pair in [("sad", 1), ("sad", 3), ("fear", 2), ("sad", 2)]]
    )
    table = usage_by_emotion(model, found[:, None], classes)
    found = table[table["count"] > 0].to_numpy().tolist()
    assert found == [["fear", 1, 1], ["sad", 0, 3]]
    assert len(table) == 8 * 3


class Emotion(nn.Module):
    """Tokens whose mean is the prior's first `dim` numbers in retrieval mode, and minus them otherwise."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(dim=2, num_codes=3)
        self.codebook = small_bank([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
        self.modes: list[tuple] = []

    def forward(self, prior: Tensor, retrieval: bool | None = None, gradient_to_bank: bool = False):
        self.modes.append((retrieval, gradient_to_bank))
        sign = 1.0 if retrieval else -1.0
        tokens = torch.stack([sign * prior + 1.0, sign * prior - 1.0], dim=-2)
        return SimpleNamespace(tokens=tokens, vq_loss=torch.tensor(0.7 if retrieval else 0.0))


class Priors:
    priors = torch.tensor([[[0.0, 1.0], [1.0, 1.0]], [[2.0, 0.0], [3.0, 0.0]]])  # 2 clips of 2 kinds
    classes = torch.tensor([0, 4])

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        self.rng = rng
        return self.priors[:, 0].repeat(count // 2, 1), self.classes.repeat(count // 2)


@pytest.fixture
def settings(repository: Path) -> LearnBank:
    section = load_params(repository / "profiles/demo.yaml").learn_bank
    training = section.training.model_copy(update={"num_steps": 100, "seed": 3})
    return section.model_copy(
        update={"training": training, "vq_weight": 2.0, "classification_weight": 0.5, "use_bank": True}
    )


def build(settings: LearnBank) -> BankObjective:
    objective = BankObjective(Emotion(), Priors(), Priors(), settings)
    with torch.no_grad():
        objective.head.weight.zero_()
        objective.head.bias.zero_()
        objective.head.weight[4, 0] = 1.0  # the logit of class 4 is the first number of the mean token
    return objective


def test_the_loss_is_vq_plus_classification_in_both_modes(settings: LearnBank) -> None:
    objective = build(settings)
    loss, logged = objective.loss(1, 2)

    def entropy(logit: float, is_it: bool) -> float:
        return math.log(21 + math.exp(logit)) - (logit if is_it else 0.0)

    # Retrieval sees logits 0 and 2, the whole bank 0 and -2; the second clip is of class 4.
    by_mode = [(entropy(0, False) + entropy(x, True)) / 2 for x in (2, -2)]
    assert logged == {"vq": pytest.approx(0.7), "classification": pytest.approx(sum(by_mode), rel=1e-5)}
    assert loss.item() == pytest.approx(2.0 * 0.7 + 0.5 * sum(by_mode), rel=1e-5)
    assert objective.emotion_model.modes == [(True, False), (None, True)]
    expected = np.random.default_rng([3, 1]).random()
    assert objective.train_priors.rng.random() == expected


def test_validation_asks_both_modes_about_every_kind_of_prior(settings: LearnBank) -> None:
    metrics = build(settings).validate(0)
    # Class 0, of the first clip, wins while the logit of class 4 is not above 0. Class 4, of the second one,
    # has logits of 2 and 3 in retrieval mode and of -2 and -3 with the whole bank.
    assert metrics["class_accuracy_retrieval"] == pytest.approx(3 / 4)
    assert metrics["class_accuracy_whole_bank"] == pytest.approx(2 / 4)
    assert metrics["codes_used"] == 1
    without = build(settings.model_copy(update={"use_bank": False})).validate(0)
    assert without.keys() == {"class_accuracy_retrieval", "class_accuracy_whole_bank"}


def test_codes_restart_every_twenty_steps_in_the_first_half(settings: LearnBank) -> None:
    objective, restarted = build(settings), []
    objective.restart_unused_codes = lambda rng: restarted.append(step)
    for step in range(0, 100):
        objective.loss(step, 2)
    assert restarted == [0, 20, 40]
    objective.settings = settings.model_copy(update={"use_bank": False})
    for step in (0, 20):
        objective.loss(step, 2)
    assert restarted == [0, 20, 40]


def test_restarted_codes_lie_on_priors_and_used_ones_stay(settings: LearnBank) -> None:
    objective = build(settings)
    objective.restart_unused_codes(np.random.default_rng(0))
    weights = objective.emotion_model.codebook.codebook.weight.tolist()
    assert weights[0] == [0.0, 0.0]  # the nearest of all four priors
    rows = Priors.priors.flatten(0, 1).tolist()
    assert weights[1] in rows and weights[2] in rows and weights[1] != weights[2]


@pytest.mark.parametrize(("num_codes", "num_priors"), [(5, 2), (41, 40), (21, 40)])
def test_codes_restart_on_different_priors_while_there_are_enough(
    settings: LearnBank, num_codes: int, num_priors: int
) -> None:
    objective = build(settings)
    far = torch.full((num_codes, 2), 900.0)
    far[0] = 0.0  # the only one that is used
    objective.emotion_model.codebook = small_bank(far.tolist())
    drawn = torch.arange(1.0, num_priors + 1)[:, None, None].expand(-1, 1, 2)
    objective.train_priors = SimpleNamespace(priors=drawn)
    objective.restart_unused_codes(np.random.default_rng(0))
    moved = objective.emotion_model.codebook.codebook.weight[1:, 0].tolist()
    assert set(moved) <= set(drawn.flatten().tolist())
    assert len(set(moved)) == min(num_codes - 1, num_priors) or num_codes - 1 > num_priors


def test_one_group_trains_everything(settings: LearnBank) -> None:
    objective = build(settings)
    (group,) = objective.parameter_groups(0.125)
    assert group["lr"] == 0.125
    assert len(group["params"]) == len(list(objective.emotion_model.parameters())) + 2


def test_draws_are_random_clips_of_random_kinds_with_their_classes() -> None:
    drawn = object.__new__(ClipPriors)
    drawn.priors = torch.arange(6.0).reshape(3, 2, 1)
    drawn.classes = torch.tensor([5, 6, 7])
    values, classes = drawn.draw(np.random.default_rng(0), 600)
    assert torch.equal(classes, 5 + torch.div(values[:, 0], 2, rounding_mode="floor").long())
    counts = values.flatten().long().bincount(minlength=6)
    assert counts.min() > 60 and counts.sum() == 600


def test_attention_is_the_softmax_of_scaled_products_summed_over_a_codes_tokens() -> None:
    torch.manual_seed(0)
    model = EmotionModel(3, 4, 5, 2, 2, 8, 16).eval()
    prior = torch.randn(2, 3)
    with torch.no_grad():
        query = model.attention.fc_q(model.emo_linear(prior)).double().numpy()
        tokens = model.kv_tokens_linear(model.codebook.codebook.weight)  # (codes, tokens, dim)
        key = model.attention.fc_k(tokens).double().numpy()
    expected = np.zeros((2, 5))
    for sample in range(2):
        for head in range(2):
            part = slice(2 * head, 2 * head + 2)
            for token in range(2):
                scores = np.array([[q @ query[sample, token, part] for q in code[:, part]] for code in key])
                weights = np.exp(scores / math.sqrt(2))
                expected[sample] += weights.sum(1) / weights.sum() / 4
    assert np.allclose(bank_attention(model, prior).numpy(), expected, atol=1e-6)
    keys = {f"P/{emotion}": np.random.default_rng(i).normal(size=3) for i, emotion in enumerate(EMOTIONS)}
    keys = {name: values.astype(np.float32) for name, values in keys.items()}
    attention = bank_attention(model, torch.from_numpy(np.stack([keys[f"P/{e}"] for e in EMOTIONS]))).numpy()
    correlation = emotion_correlation(model, keys)
    first, last = attention[0].astype(float), attention[7].astype(float)
    cosine = first @ last / np.sqrt((first @ first) * (last @ last))
    assert correlation["cosine"][0][7] == pytest.approx(cosine, abs=2e-6)
    first, last = first - attention.mean(0), last - attention.mean(0)
    cosine = first @ last / np.sqrt((first @ first) * (last @ last))
    assert correlation["cosine_centred"][0][7] == pytest.approx(cosine, abs=1e-4)
    assert correlation["emotions"] == list(EMOTIONS)


class Table:
    """Clips with labels; `embed_clips` below says row i is (i, 1)."""

    def __init__(self, labels: list[tuple[str | None, int]]) -> None:
        import pandas as pd

        self.table = pd.DataFrame(labels, columns=["emotion", "level"])

    def __len__(self) -> int:
        return len(self.table)


def test_class_priors_are_the_means_of_the_right_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [*CLASSES, ("happy", 3), ("happy", 3)]
    clips = Table(labels)
    vectors = np.stack([np.arange(len(labels), dtype=np.float32), np.ones(len(labels), np.float32)], axis=1)
    monkeypatch.setattr(priors, "embed_clips", lambda *_: vectors)
    found = class_priors(None, clips)
    assert len(found) == 22 + 8
    index = CLASSES.index(("happy", 3))
    assert found["P/happy/2"].tolist() == [index - 1, 1.0]
    assert found["P/happy/3"].tolist() == [pytest.approx((index + 22 + 23) / 3), 1.0]
    # Over clips, not over levels.
    assert found["P/happy"][0] == pytest.approx((index - 2 + index - 1 + index + 22 + 23) / 5)
    assert found["P/happy"].dtype == np.float32


def test_label_priors_are_one_hot_codes_brought_to_mean_zero_and_variance_one() -> None:
    embedder = SimpleNamespace(config=SimpleNamespace(embedding_dim=23))
    rows = clip_priors("label", embedder, Table([("sad", 2), (None, 0), ("angry", 1)]))
    # A one among 23 numbers: mean 1 / 23, variance 22 / 23^2.
    high, low = (1 - 1 / 23) / math.sqrt(22 / 529), (-1 / 23) / math.sqrt(22 / 529)
    expected = np.full(23, low)
    expected[CLASSES.index(("sad", 2))] = high
    assert rows[0] == pytest.approx(expected) and not rows[1].any() and rows[2][0] == pytest.approx(high)
    means = label_priors(23)["P/sad"]
    places = [CLASSES.index(("sad", level)) for level in (1, 2, 3)]
    assert means[places] == pytest.approx([(high + 2 * low) / 3] * 3)
    assert label_priors(22)["P/neutral/1"].shape == (22,)


def test_cosines_of_priors_plain_and_around_their_mean() -> None:
    assert cosine_matrix(np.array([[3.0, 4.0], [4.0, 3.0], [0.0, 0.0]])).tolist() == [
        [pytest.approx(1.0), pytest.approx(0.96), 0.0],
        [pytest.approx(0.96), pytest.approx(1.0), 0.0],
        [0.0, 0.0, 0.0],
    ]
    rows = np.array([[5.0, float(i)] for i in range(8)])
    metrics = prior_metrics({f"P/{e}": row for e, row in zip(EMOTIONS, rows, strict=True)})
    assert metrics["norm"] == pytest.approx([math.hypot(5, i) for i in range(8)], abs=1e-6)
    assert metrics["cosine"][0][5] == pytest.approx(math.cos(math.pi / 4), abs=1e-6)
    assert metrics["cosine_centred"][0][1] == 1.0 and metrics["cosine_centred"][0][7] == -1.0
