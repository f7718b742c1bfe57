"""Noise levels, Euler steps and windows equal the official ones."""

from __future__ import annotations

import pytest
import torch
from golden_vectors import read_meta

from dicetalk.models.sampling import add_noise, denoised, make_scheduler, precondition
from dicetalk.models.windows import WindowPlan


@pytest.mark.parametrize("steps", [1, 4, 5, 10, 25, 50])
def test_noise_levels(vectors, steps):
    golden = vectors("scheduler")
    scheduler = make_scheduler()
    scheduler.set_timesteps(steps)
    torch.testing.assert_close(scheduler.sigmas, golden[f"out.n{steps}.sigmas"], rtol=1e-6, atol=0)
    torch.testing.assert_close(scheduler.timesteps, golden[f"out.n{steps}.timesteps"], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        precondition(scheduler.sigmas[:-1]).c_noise, scheduler.timesteps, rtol=1e-5, atol=1e-6
    )


def test_euler_steps_and_preconditioning(vectors, close):
    golden = vectors("scheduler")
    scheduler = make_scheduler()
    scheduler.set_timesteps(5)
    sample = golden["in.sample"]
    for step, timestep in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[step]
        expected_input = golden[f"out.step{step}.scaled_input"]
        close(scheduler.scale_model_input(sample, timestep), expected_input)
        close(precondition(sigma).c_in * sample, expected_input)
        velocity = golden[f"in.step{step}.model_output"]
        expected_clean = golden[f"out.step{step}.pred_original_sample"]
        close(denoised(sample, velocity, sigma), expected_clean, atol=2e-4)
        sample = scheduler.step(velocity, timestep, sample).prev_sample
        close(sample, golden[f"out.step{step}.prev_sample"])


def test_add_noise(vectors, close):
    golden = vectors("scheduler")
    sigmas = golden["out.n5.sigmas"]
    clean, noise = golden["in.addnoise.original"], golden["in.addnoise.noise"]
    close(add_noise(clean, noise, sigmas[0]), golden["out.addnoise.first"])
    close(add_noise(clean, noise, sigmas[2]), golden["out.addnoise.third"])


def test_ring_windows():
    for case in read_meta("windows")["cases"]:
        plan = WindowPlan(case["frames_per_batch"], case["overlap"], case["shift_offset"], ring=True)
        total = case["num_frames"] + plan.num_padding_frames
        assert total == case["total"]
        for step, expected in enumerate(case["windows"]):
            assert plan.frame_indices(total, step).tolist() == expected
