"""The UNet is one graph for `torch.compile`, with the numbers of the uncompiled one."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from dicetalk.models.token_sets import TokenSets
from dicetalk.models.unet import DiceTalkUNet


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.fixture
def unet(unet_config: dict) -> DiceTalkUNet:
    torch.manual_seed(0)
    return DiceTalkUNet(**unet_config)


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "sample": torch.randn(2, 3, 16, 4, 4),
        "timestep": torch.tensor([0.3, -0.2]),
        "encoder_hidden_states": torch.randn(2, 1, 16),
        "added_time_ids": torch.tensor([[12.5, 8.0, 16.0]]).expand(2, -1),
        "audio_tokens": torch.randn(2, 3, 3, 16),
        "emotion_tokens": torch.randn(2, 1, 2, 16),
        "face_mask": torch.rand(2, 1, 32, 32),
        "pose_feature": torch.randn(2, 32, 4, 4),
    }


def step(unet: DiceTalkUNet, forward, inputs: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of velocity and features, and every gradient."""
    unet.zero_grad(set_to_none=True)
    output = forward(**inputs)
    loss = output.sample.square().mean() + output.features.square().mean()
    loss.backward()
    return loss.detach(), {name: w.grad for name, w in unet.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_forward_and_backward_are_one_graph(
    unet: DiceTalkUNet, inputs: dict, backend: str, checkpointing: bool
) -> None:
    expected, expected_gradients = step(unet, unet, inputs)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    compiled = torch.compile(unet, fullgraph=True, backend=backend)
    loss, gradients = step(unet, compiled, inputs)
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@torch.no_grad()
def test_kept_keys_and_values_serve_compiled_passes_of_other_samples(
    unet: DiceTalkUNet, inputs: dict
) -> None:
    audio = TokenSets(torch.randn(5, 3, 16), torch.tensor([[0, 1, 2], [3, 4, 0]]), keep=True)
    emotion = TokenSets(torch.randn(3, 2, 16), torch.tensor([[1], [2]]), keep=True)
    compiled = torch.compile(unet.eval(), fullgraph=True, backend="eager")
    for shift in range(3):
        chosen = {
            "audio_tokens": audio.at(audio.index.roll(shift, 0)),
            "emotion_tokens": emotion.at(emotion.index.roll(shift, 0)),
        }
        gathered = {name: sets.gather() for name, sets in chosen.items()}
        velocity = compiled(**{**inputs, **chosen}).sample
        torch.testing.assert_close(velocity, unet(**{**inputs, **gathered}).sample, rtol=1e-4, atol=1e-5)
    assert not counters["graph_break"]
