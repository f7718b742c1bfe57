from __future__ import annotations

import pytest
import torch

from dicetalk.errors import DicetalkError
from dicetalk.models.backbones.denoisers.table import denoiser_of
from dicetalk.models.batching import samples_within
from dicetalk.models.cost import CostMeter


@torch.no_grad()
def test_the_batch_that_is_said_to_fit_fits_and_a_larger_one_does_not(pipeline):
    unet, frames, side, tokens = pipeline.unet, 4, 8, 3

    def peak(batch):
        with CostMeter() as memory:
            unet(
                sample=torch.randn(batch, frames, 16, side, side),
                timestep=torch.zeros(batch),
                encoder_hidden_states=torch.randn(batch, 1, 16),
                added_time_ids=torch.randn(batch, 3),
                audio_tokens=torch.randn(batch, frames, tokens, 16),
                emotion_tokens=torch.randn(batch, frames, tokens, 16),
                face_mask=torch.rand(batch, 1, 64, 64),
                pose_feature=torch.randn(batch, 32, side, side),
            )
        return memory.peak_bytes

    budget = 3.5 * peak(1) / 2**30
    assert samples_within(budget, denoiser_of(unet), frames, side, side, tokens) == 3
    assert peak(3) <= budget * 2**30 < peak(4)


def test_a_budget_below_one_sample_is_refused(pipeline):
    with pytest.raises(DicetalkError, match="memory_budget_gib"):
        samples_within(1e-6, pipeline.denoiser, 4, 8, 8, 3)


def test_a_budget_changes_how_many_run_together_but_no_result(pipeline, clips):
    batches = []
    hook = pipeline.unet.register_forward_pre_hook(
        lambda module, args, kwargs: batches.append(len(kwargs["sample"])), with_kwargs=True
    )

    def run(**options):
        batches.clear()
        generator = torch.Generator().manual_seed(0)
        return pipeline(
            **clips, num_inference_steps=1, generator=generator, output_type="latent", **options
        ).frames

    few = run(max_batch=1)
    assert set(batches) == {1}
    many = run(memory_budget_gib=1.0)
    hook.remove()
    assert len(batches) == 1
    torch.testing.assert_close(many, few, rtol=1e-4, atol=1e-4)
