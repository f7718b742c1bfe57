from __future__ import annotations

import copy

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel

from dicetalk.errors import DicetalkError
from dicetalk.models.unet import DiceTalkUNet


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(2)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        "sample": normal(2, 3, 16, 4, 4),
        "timestep": torch.tensor([0.3, -0.2]),
        "encoder_hidden_states": normal(2, 1, 16),
        "added_time_ids": torch.tensor([[12.5, 8.0, 16.0]]).expand(2, -1),
        "audio_tokens": normal(2, 3, 3, 16),
        "emotion_tokens": normal(2, 1, 2, 16),
        "face_mask": torch.ones(2, 1, 32, 32),
        "pose_feature": normal(2, 32, 4, 4),
    }


@pytest.fixture(scope="module")
def stock(unet_config):
    torch.manual_seed(3)
    return UNetSpatioTemporalConditionModel(**unet_config).eval()


@pytest.mark.parametrize("size", [(4, 4), (5, 6), (7, 3)])  # odd sides need to be told
@torch.no_grad()
def test_from_svd_without_adapters_is_the_stock_unet(stock, inputs, size):
    model = DiceTalkUNet.from_svd(stock).eval()
    sample = torch.randn(2, 3, 16, *size, generator=torch.Generator().manual_seed(4))
    inputs = {**inputs, "sample": sample, "pose_feature": None, "adapter_scales": (0.0, 0.0)}
    ours = model(**inputs).sample
    names = ("sample", "timestep", "encoder_hidden_states", "added_time_ids")
    torch.testing.assert_close(ours, stock(**{k: inputs[k] for k in names}).sample, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_pose_feature_is_added_to_the_first_convolution(stock, inputs):
    model = DiceTalkUNet.from_svd(stock).eval()
    shift = torch.linspace(-1, 1, 32)
    shifted = copy.deepcopy(model)
    shifted.conv_in.bias += shift
    pose = shift[None, :, None, None].expand(2, -1, 4, 4)
    found = model(**{**inputs, "pose_feature": pose}).sample
    expected = shifted(**{**inputs, "pose_feature": None}).sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, model(**{**inputs, "pose_feature": None}).sample, atol=1e-3)


@torch.no_grad()
def test_adapters_of_from_svd_copy_the_image_attention(stock):
    for _, attn in DiceTalkUNet.from_svd(stock).named_cross_attentions():
        for to_k, to_v in zip(attn.processor.to_k_ip, attn.processor.to_v_ip, strict=True):
            assert torch.equal(to_k.weight, attn.to_k.weight) and torch.equal(to_v.weight, attn.to_v.weight)


def test_from_svd_refuses_another_network(stock):
    broken = copy.deepcopy(stock)
    del broken.conv_out
    with pytest.raises(DicetalkError, match="conv_out"):
        DiceTalkUNet.from_svd(broken)


@torch.no_grad()
def test_several_image_tokens_attend(stock, inputs):
    model = DiceTalkUNet.from_svd(stock).eval()
    token = inputs["encoder_hidden_states"]
    one = model(**inputs).sample
    twice = model(**{**inputs, "encoder_hidden_states": token.expand(-1, 2, -1)}).sample
    torch.testing.assert_close(twice, one, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_frames_axis_of_one_means_all_frames(stock, inputs):
    model = DiceTalkUNet.from_svd(stock).eval()
    emotion = inputs["emotion_tokens"].expand(-1, 3, -1, -1)
    repeated = model(**{**inputs, "emotion_tokens": emotion}).sample
    torch.testing.assert_close(model(**inputs).sample, repeated, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_zero_mask_leaves_only_temporal_adapters(stock, inputs):
    model = DiceTalkUNet.from_svd(stock).eval()
    full = model(**inputs).sample
    masked = model(**{**inputs, "face_mask": torch.zeros(1, 1, 32, 32)}).sample
    none = model(**{**inputs, "adapter_scales": (0.0, 0.0)}).sample
    assert (full - masked).abs().max() > 1e-4 and (masked - none).abs().max() > 1e-4


def test_features_carry_gradients_and_match_the_mid_block(stock, inputs):
    model = DiceTalkUNet.from_svd(stock)
    output = model(**inputs)
    assert output.features.shape == (2, 3, 32, 2, 2)
    output.features.square().mean().backward()
    assert model.conv_in.weight.grad.abs().max() > 0
    assert model.conv_out.weight.grad is None


@torch.no_grad()
def test_copies_and_saved_models_are_independent(stock, inputs, tmp_path):
    model = DiceTalkUNet.from_svd(stock).eval()
    expected = model(**inputs).sample
    duplicate = copy.deepcopy(model)
    model.save_pretrained(tmp_path)
    for weight in model.parameters():
        weight.zero_()
    assert torch.equal(duplicate(**inputs).sample, expected)
    assert torch.equal(DiceTalkUNet.from_pretrained(tmp_path)(**inputs).sample, expected)


@torch.no_grad()
def test_channels_last_changes_no_result(stock, inputs):
    model = DiceTalkUNet.from_svd(stock).eval()
    expected = model(**inputs).sample
    assert model.use_channels_last() is model
    assert model.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(**inputs).sample, expected, rtol=1e-4, atol=1e-5)


def test_checkpointing_computes_every_transformer_block_again_with_the_same_gradients(stock, inputs):
    model, runs = DiceTalkUNet.from_svd(stock).train(), []
    blocks = [m for n, m in model.named_modules() if n.rpartition(".")[0].endswith("transformer_blocks")]
    for block in blocks:
        block.norm3.register_forward_hook(lambda layer, args, output: runs.append(layer))

    def gradients() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad(set_to_none=True)
        runs.clear()
        loss = model(**inputs).sample.square().sum()
        loss.backward()
        return loss, {name: w.grad for name, w in model.named_parameters() if w.grad is not None}

    loss, expected = gradients()
    assert len(runs) == len(set(runs)) == len(blocks) > 0
    assert any("temporal" in type(block).__name__.lower() for block in blocks)
    model.enable_gradient_checkpointing()
    again, found = gradients()
    assert len(runs) == 2 * len(blocks)
    assert torch.equal(again, loss) and found.keys() == expected.keys()
    for name, gradient in found.items():
        assert torch.equal(gradient, expected[name]), name
    model.disable_gradient_checkpointing()
    gradients()
    assert len(runs) == len(blocks)
