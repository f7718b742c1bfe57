from __future__ import annotations

import pytest
import torch

from dicetalk.models import token_sets
from dicetalk.models.token_sets import TokenSets
from dicetalk.models.windows import WindowPlan


def counted(function):
    def call(tokens):
        call.rows.append(tokens.shape[0])
        return function(tokens)

    call.rows = []
    return call


@pytest.mark.parametrize("keep", [True, False])
def test_keys_and_values_are_those_of_the_picked_sets(keep):
    tokens, index = torch.randn(4, 3, 5), torch.tensor([[0, 2, 2], [3, 0, 1]])
    sets = TokenSets(tokens, index, keep)
    key, value = sets.keys_values(7, lambda x: 2 * x, lambda x: -x)
    assert torch.equal(sets.gather(), tokens[index])
    assert torch.equal(key, 2 * tokens[index]) and torch.equal(value, -tokens[index])


def test_each_layer_projects_each_set_once():
    sets = TokenSets(torch.randn(4, 3, 5), torch.zeros(1, 1, dtype=torch.long), keep=True)
    to_key, to_value = counted(lambda x: x), counted(lambda x: x + 1)
    for index in (torch.tensor([[0, 1]]), torch.tensor([[2, 3], [1, 1]])):
        for layer in (1, 2):
            sets.at(index).keys_values(layer, to_key, to_value)
    assert to_key.rows == to_value.rows == [4, 4]


def test_a_sampling_projects_speech_once_and_gives_the_same_without_memory_for_it(
    pipeline, clips, monkeypatch
):
    layers = [attn.processor for _, attn in pipeline.unet.named_cross_attentions()]
    spatial = next(layer for layer in layers if not layer.temporal)
    rows = []
    hook = spatial.to_k_ip[0].register_forward_hook(lambda module, args, output: rows.append(len(args[0])))

    def run():
        rows.clear()
        return pipeline(
            **clips,
            num_inference_steps=3,
            audio_scale=2.0,
            emotion_scale=4.0,  # all four branches
            windows=WindowPlan(4, 1, 1, ring=True),
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).frames

    with_cache = run()
    assert rows == [1 + 2 * 6]  # the null tokens and two clips of six frames
    monkeypatch.setattr(token_sets, "KEY_VALUE_CACHE_BYTES", 0)
    without = run()
    hook.remove()
    assert len(rows) > 3
    torch.testing.assert_close(with_cache, without, rtol=1e-4, atol=1e-4)
