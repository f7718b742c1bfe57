"""Projections, attention with adapters, masks, discriminator and portraits against plain arithmetic."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dicetalk.errors import DicetalkError
from dicetalk.models import preprocessing
from dicetalk.models.adapters import AdapterAttnProcessor, AttentionConditions
from dicetalk.models.discriminator import EmotionDiscriminator
from dicetalk.models.emotion import EmotionAttention, EmotionBank, EmotionModel
from dicetalk.models.phonemes import PhonemeEncoder
from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.preprocessing import face_mask, image_to_tensor, model_size, tensor_to_image
from dicetalk.models.projection import AudioProjection, TokenProjection
from dicetalk.models.slicing import SlicedProcessor, slice_self_attention
from dicetalk.models.unet import DiceTalkUNet

TOLERANCE = {"abs": 1e-5}


def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    bias = 0.0 if layer.bias is None else layer.bias.detach().numpy()
    return x @ layer.weight.detach().numpy().T + bias


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> np.ndarray:
    """Multi-head attention of `(queries, dim)` to `(tokens, dim)`, head by head."""
    width = q.shape[1] // heads
    parts = []
    for head in range(heads):
        cut = slice(head * width, (head + 1) * width)
        scores = np.exp(q[:, cut] @ k[:, cut].T / math.sqrt(width))
        parts.append(scores / scores.sum(1, keepdims=True) @ v[:, cut])
    return np.concatenate(parts, axis=1)


@torch.no_grad()
def test_tokens_are_a_three_layer_network_normalised_token_by_token() -> None:
    torch.manual_seed(0)
    projection = TokenProjection(3, 5, 2, 4)
    nn.init.normal_(projection.norm.weight)
    nn.init.normal_(projection.norm.bias)
    x = torch.randn(6, 3)
    hidden = np.maximum(linear(projection.proj1, x.numpy()), 0)
    hidden = np.maximum(linear(projection.proj2, hidden), 0)
    tokens = linear(projection.proj3, hidden).reshape(6, 2, 4)
    tokens = (tokens - tokens.mean(-1, keepdims=True)) / np.sqrt(tokens.var(-1, keepdims=True) + 1e-5)
    tokens = tokens * projection.norm.weight.numpy() + projection.norm.bias.numpy()
    assert projection(x).numpy() == pytest.approx(tokens, **TOLERANCE)


@torch.no_grad()
def test_speech_windows_are_flattened_time_first() -> None:
    projection = AudioProjection(2, 3, 2, 4, 2, 4)
    windows = torch.arange(24.0).reshape(1, 2, 2, 3, 2)
    expected = TokenProjection.forward(projection, torch.arange(24.0).reshape(2, 12))
    assert torch.equal(projection(windows)[0], expected)
    assert torch.equal(projection.null_tokens(), projection(torch.zeros(1, 1, 2, 3, 2)))
    released = AudioProjection()
    shapes = [tuple(layer.weight.shape) for layer in (released.proj1, released.proj2, released.proj3)]
    assert shapes == [(1024, 10 * 5 * 384), (1024, 1024), (32 * 1024, 1024)]


@torch.no_grad()
def test_emotion_attention_equals_plain_attention() -> None:
    torch.manual_seed(0)
    layer = EmotionAttention(4, 2)
    query, context = torch.randn(1, 3, 4), torch.randn(1, 5, 4)
    q, k, v = (
        linear(f, x[0].numpy())
        for f, x in ((layer.fc_q, query), (layer.fc_k, context), (layer.fc_v, context))
    )
    assert layer(query, context)[0].numpy() == pytest.approx(attention(q, k, v, 2), **TOLERANCE)


def test_codes_start_evenly_around_zero() -> None:
    torch.manual_seed(0)
    codes = EmotionBank(3, 500, 4).codebook.weight.detach()
    assert codes.abs().max() <= 0.25 and codes.mean().item() == pytest.approx(0.0, abs=0.02)
    assert codes.std().item() == pytest.approx(0.5 / math.sqrt(12), rel=0.05)


@torch.no_grad()
def test_emotion_tokens_attend_to_the_whole_bank_or_to_one_code() -> None:
    torch.manual_seed(0)
    model = EmotionModel(3, 4, 5, 2, 2, 8, 16).eval()
    prior = torch.randn(2, 3, 3)

    def by_hand(prior: Tensor, codes: Tensor, query_prior: Tensor) -> np.ndarray:
        tokens = model.kv_tokens_linear(codes).flatten(0, 1).numpy()
        query = model.emo_linear(query_prior).numpy()
        layer = model.attention
        return attention(linear(layer.fc_q, query), linear(layer.fc_k, tokens), linear(layer.fc_v, tokens), 2)

    bank = model.codebook.codebook.weight
    whole, retrieved = model(prior), model(prior, retrieval=True)
    dropped = torch.tensor([[False, True, False], [False, False, False]])
    masked = model(prior, drop_mask=dropped, retrieval=True)
    assert whole.vq_loss == 0 and whole.indices is None and whole.tokens.shape == (2, 3, 2, 4)
    for clip in range(2):
        for frame in range(3):
            one = prior[clip, frame]
            assert whole.tokens[clip, frame].numpy() == pytest.approx(by_hand(one, bank, one), **TOLERANCE)
            distances = (model.codebook.fc(one) - bank).norm(dim=1)
            assert retrieved.indices[clip, frame] == distances.argmin()
            code = bank[distances.argmin()][None]
            assert retrieved.tokens[clip, frame].numpy() == pytest.approx(
                by_hand(one, code, one), **TOLERANCE
            )
            if dropped[clip, frame]:
                nothing = by_hand(one, torch.zeros(1, 4), torch.zeros(3))
                assert masked.tokens[clip, frame].numpy() == pytest.approx(nothing, **TOLERANCE)
            else:
                assert torch.allclose(masked.tokens[clip, frame], retrieved.tokens[clip, frame], atol=1e-6)
    assert torch.allclose(model(prior, drop_mask=dropped).tokens[0, 1], model.null_tokens()[0, 0], atol=1e-6)
    assert masked.vq_loss == retrieved.vq_loss > 0


class Attention:
    """The layers of diffusers' cross-attention, with a dropout that does nothing."""

    heads = 2

    def __init__(self) -> None:
        self.to_q, self.to_k, self.to_v = nn.Linear(4, 4, bias=False), nn.Linear(3, 4), nn.Linear(3, 4)
        self.to_out = [nn.Linear(4, 4), nn.Identity()]


BATCH, FRAMES, PIXELS = 2, 3, 4


@pytest.mark.parametrize("temporal", [False, True])
@pytest.mark.parametrize("image_tokens", [1, 2])
@torch.no_grad()
def test_adapters_add_gated_attention_to_that_of_the_image(temporal: bool, image_tokens: int) -> None:
    torch.manual_seed(0)
    attn, processor = Attention(), AdapterAttnProcessor(4, 3, temporal)
    image = torch.randn(BATCH, 1, image_tokens, 3)
    audio, emotion = torch.randn(BATCH, FRAMES, 2, 3), torch.randn(BATCH, 1, 2, 3)
    mask = torch.rand(BATCH, 1, PIXELS, 1)
    conditions = AttentionConditions.of(image, (audio, emotion), (1.0, 0.5), {PIXELS: mask})
    hidden = torch.randn(BATCH, FRAMES, PIXELS, 4)
    shown = hidden.transpose(1, 2).flatten(0, 1) if temporal else hidden.flatten(0, 1)
    output = processor(attn, shown, conditions)
    output = output.unflatten(0, (BATCH, -1))
    output = output.transpose(1, 2) if temporal else output
    for sample in range(BATCH):
        for frame in range(FRAMES):
            for pixel in range(PIXELS):
                query = linear(attn.to_q, hidden[sample, frame, pixel].numpy())[None]
                tokens = image[sample, 0].numpy()
                total = attention(query, linear(attn.to_k, tokens), linear(attn.to_v, tokens), 2)[0]
                gate = 1.0 if temporal else mask[sample, 0, pixel, 0].item()
                spoken = audio[sample].mean(0) if temporal else audio[sample, frame]
                for index, (tokens, scale) in enumerate(((spoken, 1.0), (emotion[sample, 0], 0.5))):
                    key = linear(processor.to_k_ip[index], tokens.numpy())
                    value = linear(processor.to_v_ip[index], tokens.numpy())
                    total = total + gate * scale * attention(query, key, value, 2)[0]
                expected = linear(attn.to_out[0], total)
                assert output[sample, frame, pixel].numpy() == pytest.approx(expected, **TOLERANCE)


@torch.no_grad()
def test_an_adapter_of_scale_zero_is_left_out_and_without_mask_all_pixels_count() -> None:
    torch.manual_seed(0)
    attn, processor = Attention(), AdapterAttnProcessor(4, 3, False)
    image, audio, emotion = torch.randn(1, 1, 1, 3), torch.randn(1, 2, 2, 3), torch.randn(1, 2, 2, 3)
    hidden = torch.randn(2, PIXELS, 4)
    outputs = []
    for tokens, scales in (
        ((audio, emotion), (1.0, 0.0)),
        ((audio, 9 * emotion), (1.0, 0.0)),
        ((audio, emotion), (0, 0)),
    ):
        outputs.append(processor(attn, hidden, AttentionConditions.of(image, tokens, scales)))
    assert torch.equal(outputs[0], outputs[1]) and not torch.allclose(outputs[0], outputs[2])
    plain = linear(attn.to_out[0], linear(attn.to_v, image[0, 0].numpy()))
    assert outputs[2].numpy() == pytest.approx(np.broadcast_to(plain, (2, PIXELS, 4)), **TOLERANCE)
    ones = {PIXELS: torch.ones(1, 1, PIXELS, 1)}
    full = AttentionConditions.of(image, (audio, emotion), (1.0, 0.0), ones)
    assert torch.allclose(processor(attn, hidden, full), outputs[0], atol=1e-6)


def test_adapters_start_as_copies() -> None:
    attn, processor = Attention(), AdapterAttnProcessor(4, 3, False)
    attn.to_k, attn.to_v = nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)
    processor.copy_from(attn)
    for index in range(2):
        assert torch.equal(processor.to_k_ip[index].weight, attn.to_k.weight)
        assert torch.equal(processor.to_v_ip[index].weight, attn.to_v.weight)


def test_masks_of_all_levels() -> None:
    mask = torch.zeros(1, 1, 12, 20)
    mask[..., 10:] = 1.0
    found = DiceTalkUNet.level_masks(mask, 6, 10, 3)
    assert list(found) == [60, 15, 6]  # 6 x 10, 3 x 5, 2 x 3
    assert all(level.shape == (1, 1, size, 1) for size, level in found.items())
    rows = found[60].reshape(6, 10)
    assert rows[0, :4].abs().max() < 1e-6 and (rows[0, 6:] - 1).abs().max() < 1e-6
    assert torch.equal(rows[0], rows[5])


@torch.no_grad()
def test_discriminator_pools_over_the_picture() -> None:
    torch.manual_seed(0)
    network = EmotionDiscriminator(3, 4).eval()
    features = torch.randn(2, 3, 5, 6)
    hidden = features.mean((2, 3)).numpy()
    for layer in (network.fc1, network.fc2):
        hidden = np.maximum(linear(layer, hidden), 0)
    assert network(features).numpy() == pytest.approx(linear(network.fc3, hidden), **TOLERANCE)
    assert network.dropout.p == 0.1 and network(features[None]).shape == (1, 2, 4)
    released = EmotionDiscriminator()
    shapes = [tuple(layer.weight.shape) for layer in (released.fc1, released.fc2, released.fc3)]
    assert shapes == [(512, 1280), (256, 512), (22, 256)]


@torch.no_grad()
def test_pose_guider_starts_silent_and_halves_the_mask() -> None:
    torch.manual_seed(0)
    guider = PoseGuider(6, 3, (4, 5, 6, 7))
    mask = torch.rand(2, 1, 32, 16)
    assert not guider(mask).any()
    nn.init.normal_(guider.conv_out.weight)
    assert guider(mask).shape == (2, 6, 4, 2)
    assert torch.allclose(guider(mask), guider(mask.repeat(1, 3, 1, 1)), atol=1e-6)
    hidden = nn.functional.silu(guider.conv_in(mask.repeat(1, 3, 1, 1)))
    for block in guider.blocks:
        hidden = nn.functional.silu(block(hidden))
    assert torch.allclose(guider(mask), guider.conv_out(hidden), atol=1e-6)
    channels = [(block.in_channels, block.out_channels, block.stride[0]) for block in guider.blocks]
    assert channels == [(4, 4, 1), (4, 5, 2), (5, 5, 1), (5, 6, 2), (6, 6, 1), (6, 7, 2)]
    released = PoseGuider()
    assert [block.out_channels for block in released.blocks] == [16, 32, 32, 96, 96, 256]
    assert released.conv_out.weight.shape[:2] == (320, 256)


@torch.no_grad()
def test_speech_features_are_normalised_and_see_their_neighbours_only() -> None:
    torch.manual_seed(0)
    encoder = PhonemeEncoder(6, 8, 5).eval()
    log_mels = torch.randn(1, 20, 6)
    features, logits = encoder(log_mels)
    assert features.shape == (1, 20, 6) and logits.shape == (1, 20, 5)
    assert features.mean(-1).abs().max() < 1e-5
    assert (features.var(-1, unbiased=False) - 1).abs().max() < 0.1
    changed = log_mels.clone()
    changed[0, 10] += 5.0
    different = (encoder(changed)[0] - features).abs().amax((0, 2)) > 1e-6
    assert different.nonzero().flatten().tolist() == list(
        range(4, 17)
    )  # three kernels of five reach six tokens
    assert torch.allclose(logits, encoder.head(features))
    shapes = [tuple(p.shape) for name, p in PhonemeEncoder().named_parameters() if name.endswith("weight")]
    assert shapes == [(96, 40, 5), (96, 96, 5), (96, 96, 5), (40, 96, 1), (64, 40)]  # as shipped


def test_attention_in_steps_is_the_same_attention() -> None:
    sizes = []

    def processor(attn: object, hidden: Tensor, **kwargs: object) -> Tensor:
        sizes.append(len(hidden))
        return 2 * hidden

    hidden = torch.randn(7, 2, 3)
    assert torch.equal(SlicedProcessor(processor, 3)(None, hidden), 2 * hidden) and sizes == [3, 3, 1]
    layer = SimpleNamespace(processor=processor)
    layer.set_processor = lambda value: setattr(layer, "processor", value)
    for steps in (2, 4):
        slice_self_attention([layer], steps)
        assert layer.processor.processor is processor and layer.processor.num_steps == steps
    slice_self_attention([layer], None)
    assert layer.processor is processor


# --- portraits


def test_sides_are_multiples_near_the_short_side() -> None:
    assert model_size(1000, 1500) == (512, 768)
    assert model_size(1000, 1430) == (512, 704)  # 732 is nearer to 704 than to 768
    assert model_size(640, 480, 64, 16) == (80, 64)  # 85.3


def test_clip_sees_224_px_standardised_by_its_own_colours() -> None:
    picture = Image.new("RGB", (40, 30), (255, 0, 51))
    pixels = preprocessing.clip_pixels(picture)
    assert pixels.shape == (3, 224, 224)
    # OpenAI's CLIP: mean and standard deviation of red, green and blue.
    expected = [(1 - 0.48145466) / 0.26862954, -0.4578275 / 0.26130258, (0.2 - 0.40821073) / 0.27577711]
    assert pixels.flatten(1).mean(1).tolist() == pytest.approx(expected, abs=1e-4)


def test_pixels_become_tensors_and_pictures() -> None:
    image = Image.fromarray(np.array([[[0, 51, 255], [255, 0, 102]]], np.uint8))
    pixels = image_to_tensor(image)
    assert pixels.shape == (3, 1, 2)
    assert pixels[:, 0].tolist() == [[-1, 1], [pytest.approx(-0.6), -1], [1, pytest.approx(-0.2)]]
    assert np.array_equal(np.asarray(tensor_to_image(pixels)), np.asarray(image))
    assert np.asarray(tensor_to_image(torch.full((3, 1, 1), 1.5))).max() == 255
    assert np.asarray(tensor_to_image(torch.full((3, 1, 1), -1.5))).max() == 0


def test_face_masks_are_enlarged_rectangles() -> None:
    mask = face_mask((40, 40, 40, 20), (200, 100), (200, 100), area=1.5)
    assert mask.shape == (1, 100, 200)
    rows, columns = np.nonzero(mask[0].numpy())
    # Centre (60, 50); halves of 1.5 times 40 x 20: 30 and 15.
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (30, 89, 35, 64)
    assert mask.max() == 1.0
    at_the_border = face_mask((-10, 90, 40, 20), (25, 100), (25, 100), area=1.0)
    rows, columns = np.nonzero(at_the_border[0].numpy())
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (0, 24, 90, 99)
    # 41 * 1.1 / 2 = 22.55 and the centre at 60.5 are both rounded down.
    rows, columns = np.nonzero(face_mask((40, 40, 41, 41), (200, 100), (200, 100))[0].numpy())
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (38, 81, 38, 81)
    assert face_mask((40, 40, 40, 20), (200, 100), (64, 32)).shape == (1, 32, 64)


def test_slices_that_cannot_be_meant_are_refused() -> None:
    unet = DiceTalkUNet(
        down_block_types=("CrossAttnDownBlockSpatioTemporal",),
        up_block_types=("CrossAttnUpBlockSpatioTemporal",),
        block_out_channels=(32,),
        num_attention_heads=(2,),
        layers_per_block=1,
        cross_attention_dim=8,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
    )
    layers = [m for name, m in unet.named_modules() if name.endswith(".attn1")]
    for given, steps in (("auto", 2), ("max", 64), (5, 5), (1, 1)):
        unet.set_attention_slice(given)
        assert {layer.processor.num_steps for layer in layers} == {steps}
    unet.set_attention_slice(None)
    assert not any(isinstance(layer.processor, SlicedProcessor) for layer in layers)
    for bad in ("some", 0, -1):
        with pytest.raises(DicetalkError, match="slice_size"):
            unet.set_attention_slice(bad)
    spatial = [a.inner_dim for name, a in unet.named_cross_attentions() if "temporal" not in name]
    assert unet.spatial_adapter_dims() == sum(spatial) > 0
    adapters = {id(p) for p in unet.adapter_parameters()}
    named = {id(p) for name, p in unet.named_parameters() if ".processor.to_" in name}
    assert adapters == named and len(adapters) == 4 * len(unet.named_cross_attentions())
