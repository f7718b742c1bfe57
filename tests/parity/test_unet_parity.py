"""The UNet equals the official fork of diffusers, forward and backward."""

from __future__ import annotations

import pytest
import torch
from golden_vectors import load_vectors
from hashed_tensors import fill, hashed

from dicetalk.models.unet import DiceTalkUNet

CASES = {
    "masked": {},
    "unmasked": {"face_mask": None},
    "masked_no_spatial": {"pose_feature": None},
    "masked_clip_per_sample": {"per_sample_image": True},
    "masked_scale_0.5_1.5": {"adapter_scales": (0.5, 1.5)},
    "masked_scale_1_0": {"adapter_scales": (1.0, 0.0)},
}


def unet_inputs(golden) -> dict[str, torch.Tensor]:
    batch, frames = golden["in.sample"].shape[:2]
    inputs = {
        "sample": golden["in.sample"],
        "timestep": golden["in.timestep"],
        "encoder_hidden_states": golden["in.image_embeds"],
        "audio_tokens": golden["in.audio_tokens"],
        "emotion_tokens": golden["in.emo_tokens"],
        "added_time_ids": golden["in.added_time_ids"],
        "pose_feature": golden["in.spatial_condition"],
        "face_mask": golden["in.ip_mask"].float(),
    }
    for name in ("encoder_hidden_states", "audio_tokens", "emotion_tokens"):
        inputs[name] = inputs[name].unflatten(0, (batch, frames))
    return inputs


def load_unet(golden) -> DiceTalkUNet:
    model = DiceTalkUNet.from_config(golden.meta["config"]).eval()
    model.load_state_dict(golden.weights())
    return model


@pytest.fixture(scope="module", params=["unet_tiny", "unet_tiny_b"])
def unet(request, vectors):
    golden = vectors(request.param)
    return load_unet(golden), golden


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_forward(unet, close, case):
    model, golden = unet
    inputs = unet_inputs(golden)
    changes = dict(CASES[case])
    if changes.pop("per_sample_image", False):
        inputs["encoder_hidden_states"] = inputs["encoder_hidden_states"][:, 0]
    close(model(**{**inputs, **changes}).sample, golden[f"out.{case}"])


@pytest.fixture(scope="module")
def tiny(vectors):
    golden = vectors("unet_tiny")
    return load_unet(golden), golden, vectors("unet_tiny_aux")


@torch.no_grad()
def test_activations(tiny, close):
    model, golden, aux = tiny
    seen: dict[str, torch.Tensor] = {}
    expected = aux.starting_with("out.masked.")

    def keep(name):
        def hook(module, inputs, output):
            output = output[0] if isinstance(output, tuple) else output
            seen[name] = getattr(output, "sample", output)

        return hook

    modules = dict(model.named_modules())
    # conv_in is recorded before the pose feature is added: in front of the model's own hook
    hooks = [
        modules[name].register_forward_hook(keep(name), prepend=True) for name in expected if name in modules
    ]
    output = model(**unet_inputs(golden))
    for hook in hooks:
        hook.remove()
    compared = 0
    for name, value in expected.items():
        if name in seen:
            close(seen[name][: value.shape[0]], value)
            compared += 1
    assert compared >= 14
    close(output.features.flatten(0, 1)[: len(expected["mid_block"])], expected["mid_block"])


def test_level_masks(tiny, close):
    model, golden, aux = tiny
    height, width = golden["in.sample"].shape[-2:]
    levels = len(golden.meta["config"]["down_block_types"])
    masks = model.level_masks(golden["in.ip_mask"].float(), height, width, levels)
    expected = aux.starting_with("out.mask_downsample.")
    assert len(masks) == len(expected) == levels
    for size, value in expected.items():
        height, width = map(int, size.split("x"))
        close(masks[height * width].flatten(), value.reshape(-1, height * width)[0])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients(tiny, close, checkpointing):
    model, golden, aux = tiny
    inputs = unet_inputs(golden)
    leaves = {"sample": "sample", "audio_tokens": "audio_tokens", "emo_tokens": "emotion_tokens"}
    leaves["spatial_condition"] = "pose_feature"
    for name in leaves.values():
        inputs[name] = inputs[name].detach().clone().requires_grad_()
    model.zero_grad(set_to_none=True)
    if checkpointing:
        model.enable_gradient_checkpointing()
    loss = (model(**inputs).sample * aux["in.loss_weight"]).sum()
    # Another pass in between: a recomputation must still see the conditions of its own forward
    model(**{**unet_inputs(golden), "face_mask": None, "pose_feature": None})
    loss.backward()
    model.disable_gradient_checkpointing()

    close(loss.reshape(1), aux["out.loss"], atol=1e-3)
    for golden_name, name in leaves.items():
        expected = aux[f"grad.in.{golden_name}"]
        gradient = inputs[name].grad.reshape(-1, *expected.shape[1:])
        close(gradient[: len(expected)], expected, atol=1e-4)
    weights = dict(model.named_parameters())
    expected = {k: v for k, v in aux.starting_with("grad.").items() if not k.startswith("in.")}
    assert expected
    for name, value in expected.items():
        close(weights[name].grad, value, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_fullsize_unet(close):
    reference = load_vectors("fullsize_unet")
    model = fill(DiceTalkUNet.from_config(reference.meta["config"]).eval(), 111)
    inputs = {
        "sample": hashed("fu.sample", (2, 2, 8, 16, 16), 112, 1.7),
        "timestep": reference["in.timestep"],
        "encoder_hidden_states": hashed("fu.clip", (4, 1, 1024), 112, 1.7).unflatten(0, (2, 2)),
        "audio_tokens": hashed("fu.audio", (4, 32, 1024), 112, 1.7).unflatten(0, (2, 2)),
        "emotion_tokens": hashed("fu.emo", (4, 32, 1024), 112, 1.7).unflatten(0, (2, 2)),
        "added_time_ids": reference["in.added_time_ids"],
        "pose_feature": hashed("fu.pose", (2, 2, 320, 16, 16), 112, 0.5),
    }
    close(model(**inputs, face_mask=reference["in.ip_mask"].float()).sample, reference["out.masked"])
    close(model(**inputs).sample, reference["out.unmasked"])
