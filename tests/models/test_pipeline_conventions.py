"""What diffusers' users expect of a pipeline: precision, offload, slicing, callbacks, noise, checks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from diffusers.callbacks import PipelineCallback
from PIL import Image

from dicetalk.errors import DicetalkError
from dicetalk.models.decoding import decode_tiled
from dicetalk.models.pipeline import DiceTalkPipeline
from dicetalk.models.windows import WindowPlan


def generate(pipeline, clips, **options):
    seeds = [torch.Generator().manual_seed(i) for i in range(2)]
    defaults = {"num_inference_steps": 1, "output_type": "latent", "generator": seeds}
    return pipeline(**{**defaults, **clips, **options}).frames


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_saved_pipeline_loads_in_lower_precision(pipeline, clips, tmp_path, dtype):
    pipeline.save_pretrained(tmp_path)
    low = DiceTalkPipeline.from_pretrained(tmp_path, torch_dtype=dtype)
    low.set_progress_bar_config(disable=True)
    assert {getattr(low, name).dtype for name in ("unet", "vae", "image_encoder", "emotion_model")} == {dtype}
    expected, found = (generate(model, clips, output_type="np") for model in (pipeline, low))
    assert found.dtype == np.float32 and np.abs(found - expected).mean() < 0.01
    assert generate(low, clips).dtype == torch.float32  # sigma 80 drowns half-precision latents
    assert low.to(torch.float32).unet.dtype == torch.float32


def test_model_offloading_reaches_every_network_and_changes_nothing(pipeline, fresh_pipeline, clips):
    """Without an accelerator the same hooks run with the CPU as their device."""
    fresh_pipeline.enable_model_cpu_offload(device="cpu")
    reached = set()
    for name in ("vae", "image_encoder", "unet", "audio_projection", "emotion_model", "pose_guider"):
        hook = getattr(fresh_pipeline, name)._hf_hook
        before = hook.pre_forward

        def pre_forward(module, *args, name=name, before=before, **kwargs):
            reached.add(name)
            return before(module, *args, **kwargs)

        hook.pre_forward = pre_forward
    expected = generate(pipeline, clips, output_type="pt")
    assert torch.equal(generate(fresh_pipeline, clips, output_type="pt"), expected)
    assert reached == {"vae", "image_encoder", "unet", "audio_projection", "emotion_model", "pose_guider"}
    assert torch.equal(generate(fresh_pipeline, clips, output_type="pt"), expected)  # hooks were set anew


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to offload from")
@pytest.mark.parametrize("enable", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_offloading_from_a_gpu_changes_nothing(pipeline, fresh_pipeline, clips, enable):
    getattr(fresh_pipeline, enable)()
    found = generate(fresh_pipeline, clips, output_type="pt")
    torch.testing.assert_close(found.cpu(), generate(pipeline, clips, output_type="pt"), rtol=0, atol=1e-2)


@pytest.mark.parametrize("slices", ["auto", "max", 3])
def test_attention_slicing_changes_nothing_and_keeps_the_adapters(pipeline, fresh_pipeline, clips, slices):
    names = set(fresh_pipeline.unet.state_dict())
    rows: list[int] = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def spy(query, *args, **kwargs):
        rows.append(len(query))
        return attention(query, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
        expected = generate(fresh_pipeline, clips)
        calls = len(rows)
        fresh_pipeline.enable_attention_slicing(slices)
        torch.testing.assert_close(generate(fresh_pipeline, clips), expected, rtol=1e-4, atol=1e-4)
        assert len(rows) - calls > calls
    assert set(fresh_pipeline.unet.state_dict()) == names
    fresh_pipeline.disable_attention_slicing()
    assert torch.equal(generate(fresh_pipeline, clips), generate(pipeline, clips))
    with pytest.raises(DicetalkError, match="slice_size"):
        fresh_pipeline.unet.set_attention_slice("half")


def test_feed_forward_chunking_changes_nothing(fresh_pipeline, clips):
    expected = generate(fresh_pipeline, clips)
    fresh_pipeline.unet.enable_forward_chunking(chunk_size=1, dim=0)
    torch.testing.assert_close(generate(fresh_pipeline, clips), expected, rtol=1e-4, atol=1e-4)


def test_chunks_of_an_image_autoencoder_change_nothing(pipeline, clips):
    frames = [generate(pipeline, clips, output_type="pt", decode_chunk_size=size) for size in (1, 100)]
    torch.testing.assert_close(*frames, rtol=1e-4, atol=1e-5)


def test_tiles_see_only_their_part_and_blend_to_the_same_picture():
    latents = torch.randn(2, 3, 13, 20)
    sizes = []

    def decode(part):  # every pixel on its own: tiles must make no difference
        sizes.append(part.shape[-2:])
        return part.repeat_interleave(8, -1).repeat_interleave(8, -2)

    torch.testing.assert_close(decode_tiled(decode, latents, 8), decode(latents), rtol=1e-5, atol=1e-5)
    assert set(sizes[:-1]) == {(8, 8)}
    torch.testing.assert_close(decode_tiled(decode, latents, 16), decode(latents), rtol=1e-5, atol=1e-5)


def test_tiling_of_the_decoder_is_close_and_can_be_switched_off(fresh_pipeline, clips):
    large = {**clips, "image": torch.zeros(2, 3, 96, 96), "face_mask": torch.ones(2, 1, 96, 96)}
    whole = generate(fresh_pipeline, large, output_type="pt")
    fresh_pipeline.enable_vae_tiling(64)
    tiled = generate(fresh_pipeline, large, output_type="pt")
    assert 0 < (tiled - whole).abs().max() and (tiled - whole).abs().mean() < 0.02 * whole.std()
    fresh_pipeline.disable_vae_tiling()
    assert torch.equal(generate(fresh_pipeline, large, output_type="pt"), whole)
    with pytest.raises(DicetalkError, match="multiple of 16"):
        fresh_pipeline.enable_vae_tiling(60)


def test_encoded_tokens_can_be_shared_by_calls(pipeline, clips):
    tokens = pipeline.encode_tokens(clips["image"], clips["audio_windows"], clips["emotion_prior"][:, None])
    given = {"image": clips["image"], "face_mask": clips["face_mask"], "tokens": tokens}
    for windows in (WindowPlan(4, 1, 3), WindowPlan(4, 0, 1, ring=True)):
        expected = generate(pipeline, clips, windows=windows)
        assert torch.equal(generate(pipeline, given, windows=windows), expected)
    with pytest.raises(DicetalkError, match="not both"):
        generate(pipeline, {**clips, "tokens": tokens})
    short = dataclasses.replace(tokens, emotion_tokens=tokens.emotion_tokens.expand(-1, 4, -1, -1))
    with pytest.raises(DicetalkError, match="4 emotion priors for 6 frames"):
        generate(pipeline, {**given, "tokens": short})


class Halve(PipelineCallback):
    tensor_inputs = ["latents"]

    def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
        if step_index == pipeline.num_timesteps - 1:
            callback_kwargs["latents"] = callback_kwargs["latents"] / 2
        return callback_kwargs


def test_callback_objects_of_diffusers_work(pipeline, clips):
    halved = generate(
        pipeline, clips, callback_on_step_end=Halve(cutoff_step_ratio=None, cutoff_step_index=0)
    )
    torch.testing.assert_close(2 * halved, generate(pipeline, clips))


def test_output_types_show_the_same_frames(pipeline, clips):
    frames = generate(pipeline, clips, output_type="np")
    pictures = generate(pipeline, clips, output_type="pil")
    assert len(pictures) == 2 and len(pictures[0]) == 6 and pictures[0][0].size == (32, 32)
    assert np.abs(np.array(pictures[1][5]) - frames[1, 5] * 255).max() <= 0.5
    (videos,) = pipeline(**clips, num_inference_steps=1, output_type="pt", return_dict=False)
    assert videos.shape == (2, 6, 3, 32, 32)


def test_progress_is_shown_on_demand(fresh_pipeline, clips, capsys):
    fresh_pipeline.set_progress_bar_config(disable=False, desc="denoise")
    generate(fresh_pipeline, clips)
    assert "denoise" in capsys.readouterr().err
    assert fresh_pipeline.num_timesteps == 1


@pytest.mark.parametrize("ring", [False, True])
def test_noise_comes_from_the_generator_or_is_given(pipeline, clips, ring):
    windows = WindowPlan(4, 0, 1, ring)

    def run(**options):
        return generate(pipeline, clips, windows=windows, **options)

    first, same, other = (run(generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)
    total = 6 + windows.num_padding_frames
    generator = torch.Generator().manual_seed(0)
    torch.randn(2, 3, 32, 32, generator=generator)  # drawn for the image first, as in the release
    noise = torch.randn(2, total, 8, 4, 4, generator=generator)
    assert torch.equal(run(latents=noise), first)


@pytest.mark.parametrize(("scales", "branches"), [((3.0, 5.0, 5.0), 3), ((3.0, 6.0, 4.0), 4)])
@torch.no_grad()
def test_separate_scales_follow_the_formula(pipeline, clips, scales, branches):
    """One step by hand: v = v0 + i (v_i - v0) + a (v_ia - v_i) + e (v_all - v_ia)."""
    velocities = {}
    for name, corner in {"0": (0, 0, 0), "i": (1, 0, 0), "ia": (1, 1, 0), "all": (1, 1, 1)}.items():
        latents = generate(
            pipeline,
            clips,
            num_inference_steps=1,
            **dict(zip(("identity_scale", "audio_scale", "emotion_scale"), map(float, corner), strict=True)),
        )
        velocities[name] = latents  # with one step the result is linear in the velocity
    i, a, e = scales
    v = velocities
    expected = v["0"] + i * (v["i"] - v["0"]) + a * (v["ia"] - v["i"]) + e * (v["all"] - v["ia"])
    if a == e:
        official = v["0"] + i * (v["i"] - v["0"]) + a * (v["all"] - v["i"])
        torch.testing.assert_close(expected, official, rtol=1e-3, atol=1e-3)
    found = generate(pipeline, clips, num_inference_steps=1, identity_scale=i, audio_scale=a, emotion_scale=e)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_own_windows_denoise_no_padding(pipeline, clips):
    def frames_computed(windows):
        counts = []
        hook = pipeline.unet.conv_in.register_forward_hook(
            lambda m, x, y: counts.append(len(y)), prepend=True
        )
        generate(pipeline, clips, windows=windows, num_inference_steps=1)
        hook.remove()
        return sum(counts) // (2 * 3)  # clips, guidance branches

    assert frames_computed(WindowPlan(6, 0, 0)) == 6
    assert frames_computed(WindowPlan(6, 0, 0, ring=True)) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio_windows": torch.zeros(2, 6, 10, 2, 6)}, r"expected \(\[batch,\] frames, 10, 1, 6\)"),
        ({"audio_windows": torch.zeros(2, 0, 10, 1, 6)}, "no frame"),
        ({"audio_windows": torch.full((2, 6, 10, 1, 6), torch.nan)}, "audio_windows has NaN"),
        ({"audio_windows": None}, "audio_windows is missing"),
        ({"emotion_prior": None}, "emotion_prior is missing"),
        ({"emotion_prior": torch.zeros(2, 13)}, "last axis must be 12"),
        ({"emotion_prior": torch.full((2, 12), torch.inf)}, "emotion_prior has NaN or infinite"),
        ({"face_mask": None}, "face_mask is missing"),
        ({"face_mask": torch.full((2, 1, 32, 32), 255.0)}, r"face_mask has values from 255 to 255"),
        ({"image": torch.full((2, 3, 32, 32), 255.0)}, r"expected \[-1, 1\]"),
        ({"image": torch.zeros(2, 1, 32, 32)}, "image has shape"),
        ({"image": torch.zeros(2, 3, 40, 32)}, "multiples of 16"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"strength": 0.9}, "leaves no step"),
        ({"strength": 1.1}, "strength is 1.1"),
        ({"noise_aug_strength": -0.1}, "noise_aug_strength"),
        ({"fps": 0.0}, "fps"),
        ({"audio_scale": float("nan")}, "audio_scale is nan"),
        ({"emotion_scale": (1.0, 2.0, 3.0)}, "emotion_scale"),
        ({"max_batch": 0}, "max_batch"),
        ({"decode_chunk_size": 0}, "decode_chunk_size"),
        ({"latents": torch.zeros(2, 5, 8, 4, 4)}, r"expected \(2, 6, 8, 4, 4\)"),
        ({"generator": [torch.Generator()] * 3}, "3 generators for 2 clips"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, r"expected \['latents'\]"),
    ],
)
def test_inputs_that_cannot_be_meant_are_refused_before_any_work(
    pipeline, clips, monkeypatch, change, message
):
    monkeypatch.setattr(pipeline, "encode_images", None)  # would fail if it came to that
    with pytest.raises(DicetalkError, match=message):
        generate(pipeline, {**clips, **change})


def test_a_call_leaves_no_trace_in_the_next(pipeline, clips):
    expected = generate(pipeline, clips)
    generate(
        pipeline,
        clips,
        num_inference_steps=3,
        identity_scale=1.0,
        audio_scale=(1.0, 9.0),
        strength=0.7,  # two of three steps
        windows=WindowPlan(4, 1, 3, ring=True),
    )
    assert torch.equal(generate(pipeline, clips), expected)


def test_portraits_as_pictures(pipeline, clips):
    pictures = [Image.fromarray(np.full((40, 40, 3), value, np.uint8)) for value in (30, 200)]
    frames = generate(pipeline, {**clips, "image": pictures}, output_type="pt")
    assert frames.shape == (2, 6, 3, 32, 32)
