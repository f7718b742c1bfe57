from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dicetalk.errors import DicetalkError
from dicetalk.models.pipeline import DiceTalkPipeline
from dicetalk.models.windows import WindowPlan


def generate(pipeline, clips, **options):
    seeds = [torch.Generator().manual_seed(i) for i in options.pop("seeds", range(len(clips["image"])))]
    return pipeline(**clips, num_inference_steps=2, generator=seeds, **options).frames


def test_frames_have_the_documented_shape_and_range(pipeline, clips):
    frames = generate(pipeline, clips, output_type="pt")
    assert frames.shape == (2, 6, 3, 32, 32)
    assert 0 <= frames.min() < frames.max() <= 1
    assert generate(pipeline, clips, output_type="np").shape == (2, 6, 32, 32, 3)
    assert generate(pipeline, clips, output_type="latent").shape == (2, 6, 8, 4, 4)


@pytest.mark.parametrize("ring", [False, True])
def test_clips_do_not_depend_on_batching(pipeline, clips, ring):
    windows = WindowPlan(4, 1, 3, ring)
    together = generate(pipeline, clips, windows=windows, max_batch=None)
    alone = generate(
        pipeline,
        {k: v[1:] for k, v in clips.items()},
        windows=windows,
        max_batch=1,
        seeds=[1],
        emotion_scale=6.0,
    )
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-4)


def test_single_clip_without_batch_axis(pipeline, clips):
    pixels = ((clips["image"][0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    frames = pipeline(
        Image.fromarray(pixels),
        clips["audio_windows"][0],
        clips["emotion_prior"][0],
        clips["face_mask"][:1],
        num_inference_steps=1,
    ).frames
    assert frames.shape == (1, 6, 3, 32, 32)


@pytest.mark.parametrize("name", ["image", "audio_windows", "emotion_prior", "face_mask"])
def test_every_condition_matters(pipeline, clips, name):
    changed = {**clips, name: clips[name].flip(-1)}
    options = {"windows": WindowPlan(4, 0, 1), "audio_scale": 3.0}
    assert (generate(pipeline, clips, **options) - generate(pipeline, changed, **options)).abs().max() > 1e-4


def test_per_frame_priors_equal_to_one_prior(pipeline, clips):
    expected = generate(pipeline, clips)
    repeated = clips["emotion_prior"][:, None].expand(-1, 6, -1)
    torch.testing.assert_close(
        generate(pipeline, {**clips, "emotion_prior": repeated}), expected, rtol=0, atol=1e-4
    )


def test_branches_without_weight_are_not_evaluated(pipeline, clips):
    def count_samples(**scales):
        counts = []
        hook = pipeline.unet.conv_in.register_forward_hook(
            lambda m, x, y: counts.append(len(y)), prepend=True
        )
        generate(pipeline, clips, max_batch=None, windows=WindowPlan(6, 0, 0), **scales)
        hook.remove()
        return sum(counts) // (2 * 6 * 2)  # clips x frames x steps

    assert count_samples(identity_scale=3.0, audio_scale=6.0, emotion_scale=6.0) == 3
    assert count_samples(identity_scale=3.0, audio_scale=6.0, emotion_scale=4.0) == 4
    assert count_samples(identity_scale=1.0, audio_scale=6.0, emotion_scale=6.0) == 2
    assert count_samples(identity_scale=1.0, audio_scale=1.0, emotion_scale=1.0) == 1


def test_saved_pipeline_generates_the_same(pipeline, clips, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = DiceTalkPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.config.image_size == 32
    networks = {k: v for k, v in pipeline.components.items() if isinstance(v, torch.nn.Module)}
    assert len(networks) == 6
    for name, network in networks.items():
        ours, expected = loaded.components[name].state_dict(), network.state_dict()
        assert ours.keys() == expected.keys() and all(torch.equal(ours[k], expected[k]) for k in expected)
    # On some processors matrix products round by where in memory the weights begin, which a file changes.
    frames = generate(loaded, clips)
    torch.testing.assert_close(frames, generate(pipeline, clips), rtol=0, atol=1e-5)
    assert not list(tmp_path.rglob("*.bin"))
    # What was loaded and is saved again generates the same bits.
    loaded.save_pretrained(tmp_path / "again")
    again = DiceTalkPipeline.from_pretrained(tmp_path / "again")
    again.set_progress_bar_config(disable=True)
    assert torch.equal(generate(again, clips), frames)


def test_callback_sees_and_changes_latents(pipeline, clips):
    seen = []

    def stop(pipe, step, timestep, tensors):
        seen.append(step)
        return {"latents": torch.zeros_like(tensors["latents"])}

    frames = generate(pipeline, clips, output_type="latent", callback_on_step_end=stop)
    assert seen == [0, 1] and not frames.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"emotion_prior": torch.zeros(3, 12)}, "Batch sizes"),
        ({"emotion_prior": torch.zeros(2, 4, 12)}, "4 emotion priors for 6 frames"),
        ({"face_mask": torch.zeros(2, 1, 16, 16)}, "face mask"),
        ({"strength": 0.0}, "strength"),
        ({"output_type": "gif"}, "output_type"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(pipeline, clips, change, message):
    with pytest.raises(DicetalkError, match=message):
        generate(pipeline, {**clips, **change})


def test_portraits_of_different_shape_are_refused(pipeline):
    images = [Image.fromarray(np.zeros((height, 40, 3), np.uint8)) for height in (40, 80)]
    with pytest.raises(DicetalkError, match="one size"):
        pipeline.prepare_images(images)
    assert pipeline.prepare_images(images[0]).shape == (1, 3, 32, 32)


def test_frames_are_the_decoders_from_minus_1_to_1_as_0_to_1(pipeline, clips, monkeypatch):
    decoded = torch.linspace(-1.2, 1.2, 2 * 6 * 3 * 4 * 4).reshape(2, 6, 3, 4, 4)
    monkeypatch.setattr(pipeline, "decode_latents", lambda latents, chunk_size: decoded)
    frames = generate(pipeline, clips, output_type="pt")
    assert torch.allclose(frames, ((decoded + 1) / 2).clamp(0, 1), atol=1e-6)
