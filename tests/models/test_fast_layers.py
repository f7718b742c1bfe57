from __future__ import annotations

import copy

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward

from dicetalk.models import fast_layers
from dicetalk.models.cost import CostMeter
from dicetalk.models.fast_layers import FrameConv, SplitGEGLU, use_fast_layers


@pytest.fixture
def slow(unet_config):
    torch.manual_seed(5)
    return UNetSpatioTemporalConditionModel(**unet_config).eval()


def run(model):
    generator = torch.Generator().manual_seed(6)
    sample = torch.randn(2, 3, 16, 4, 4, generator=generator)
    context = torch.randn(2, 1, 16, generator=generator)
    output = model(sample, torch.tensor(0.3), context, torch.tensor([[12.5, 8.0, 16.0]]).expand(2, -1)).sample
    output.square().sum().backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return output, gradients


def test_outputs_and_gradients_are_those_of_the_replaced_layers(slow):
    fast = copy.deepcopy(slow)
    use_fast_layers(fast)
    kinds = [type(module) for module in fast.modules()]
    assert FrameConv in kinds and SplitGEGLU in kinds
    assert torch.nn.Conv3d not in kinds and GEGLU not in kinds
    (expected, expected_gradients), (output, gradients) = run(slow), run(fast)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        scale = expected_gradients[name].abs().max()
        torch.testing.assert_close(
            gradient, expected_gradients[name], rtol=1e-4, atol=1e-5 * float(scale) + 1e-5
        )


@torch.no_grad()
def test_feed_forward_in_pieces_is_the_same_with_less_memory(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(7)
    model, rows = torch.nn.Sequential(FeedForward(8, dim_out=16)), torch.randn(3, 50, 8)
    results, peaks = [model(rows)], []
    use_fast_layers(model)
    for piece_bytes in (2**20, 11 * 32 * 4):  # whole; 150 rows in pieces of 11, the last of 7
        monkeypatch.setattr(fast_layers, "CPU_PIECE_BYTES", piece_bytes)
        with CostMeter() as memory:
            results.append(model(rows))
        peaks.append(memory.peak_bytes)
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-5, atol=1e-6)
    assert results[0].shape == (3, 50, 16) and peaks[1] < 0.6 * peaks[0]


def test_names_weights_and_random_state_stay(slow):
    before, state = {k: v.data_ptr() for k, v in slow.state_dict().items()}, torch.get_rng_state()
    use_fast_layers(slow)
    assert {k: v.data_ptr() for k, v in slow.state_dict().items()} == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_convolution_over_pixels_is_left_alone():
    model = torch.nn.Sequential(
        torch.nn.Conv3d(2, 2, (3, 3, 3), padding=1), torch.nn.Conv3d(2, 2, 1, stride=2)
    )
    use_fast_layers(model)
    assert [type(layer) for layer in model] == [torch.nn.Conv3d, torch.nn.Conv3d]
