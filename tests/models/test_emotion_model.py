from __future__ import annotations

import pytest
import torch

from dicetalk.models.emotion import EmotionModel


@pytest.fixture
def model():
    torch.manual_seed(4)
    return EmotionModel(prior_dim=6, dim=8, num_codes=5, num_tokens=3, num_heads=2, hidden_dim=8).eval()


@pytest.mark.parametrize("retrieval", [True, False])
def test_frames_and_clips_do_not_see_each_other(model, retrieval):
    priors = torch.randn(4, 3, 6)
    together = model(priors, retrieval=retrieval).tokens
    assert together.shape == (4, 3, 3, 8)
    for clip in range(4):
        alone = model(priors[clip : clip + 1, 1:2], retrieval=retrieval).tokens
        torch.testing.assert_close(alone[0, 0], together[clip, 1], rtol=1e-4, atol=1e-5)


def test_configured_mode_is_the_default(model):
    priors = torch.randn(1, 2, 6)
    assert torch.equal(model(priors).tokens, model(priors, retrieval=False).tokens)
    retrieving = EmotionModel(**{**model.config, "retrieval": True}).eval()
    retrieving.load_state_dict(model.state_dict())
    assert torch.equal(retrieving(priors).tokens, model(priors, retrieval=True).tokens)
    assert retrieving(priors).indices.shape == (1, 2)


def test_dropped_prior_leaves_no_trace(model):
    mask = torch.tensor([[True, False]])
    a, b = torch.randn(2, 1, 2, 6)
    b[:, 1] = a[:, 1]
    for retrieval in (True, False):
        first, second = (model(p, mask, retrieval=retrieval).tokens for p in (a, b))
        torch.testing.assert_close(first, second)


def test_without_a_bank_the_tokens_are_the_projected_prior():
    plain = EmotionModel(prior_dim=6, dim=8, num_codes=5, num_tokens=3, hidden_dim=8, use_bank=False)
    assert {name.split(".")[0] for name in plain.state_dict()} == {"emo_linear", "classifier"}
    priors, drop = torch.randn(2, 3, 6), torch.zeros(2, 3, dtype=torch.bool)
    drop[0, 1] = True
    output = plain(priors, drop)
    torch.testing.assert_close(output.tokens[1], plain.emo_linear(priors[1]))
    torch.testing.assert_close(output.tokens[0, 1], plain.null_tokens()[0, 0])
    assert output.vq_loss == 0 and output.indices is None


def test_bank_learns_in_retrieval_mode_or_on_request(model):
    def bank_gradient(**options):
        model.zero_grad(set_to_none=True)
        output = model(torch.randn(1, 2, 6), **options)
        (output.tokens.square().sum() + output.vq_loss).backward()
        return model.codebook.codebook.weight.grad

    assert bank_gradient(retrieval=True).any()
    assert bank_gradient(retrieval=False) is None
    assert bank_gradient(retrieval=False, gradient_to_bank=True).any()
