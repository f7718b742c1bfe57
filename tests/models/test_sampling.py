from __future__ import annotations

import pytest
import torch

from dicetalk.errors import DicetalkError
from dicetalk.models.guidance import Guidance
from dicetalk.models.sampling import add_noise, denoised, precondition, velocity_target
from dicetalk.models.windows import WindowPlan

NOTHING, IMAGE, EVERYTHING = (), ("image",), ("image", "audio", "emotion")


def test_velocity_target_denoises_exactly():
    clean, noise = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64).chunk(2, dim=1)
    clean, noise = torch.randn_like(clean), torch.randn_like(clean)
    sigma = torch.tensor([0.02, 30.0], dtype=torch.float64)
    velocity = velocity_target(clean, noise, sigma)
    torch.testing.assert_close(denoised(add_noise(clean, noise, sigma), velocity, sigma), clean)


def test_network_input_has_unit_variance():
    sigma = torch.tensor([0.1, 5.0, 200.0])
    noisy = add_noise(torch.randn(3, 100_000), torch.randn(3, 100_000), sigma)
    scaled = precondition(sigma).c_in[:, None] * noisy
    torch.testing.assert_close(scaled.std(dim=1), torch.ones(3), rtol=0.02, atol=0)


def test_joint_scale_is_the_official_formula():
    weights = Guidance(identity=3.0, audio=6.0, emotion=6.0).branch_weights(0, 25, 700.0)
    # v_u + 3 (v_i - v_u) + 6 (v_c - v_i)
    assert weights == {NOTHING: -2.0, IMAGE: -3.0, EVERYTHING: 6.0}


@pytest.mark.parametrize("scales", [(3.0, 6.0, 4.0), (1.0, 2.0, 2.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)])
def test_branch_weights_sum_to_one_and_none_is_zero(scales):
    weights = Guidance(*scales).branch_weights(3, 10, 1.0)
    assert sum(weights.values()) == pytest.approx(1.0) and all(weights.values())


def test_ramps_reach_both_ends():
    guidance = Guidance(identity=(1.0, 3.0), audio=2.0, emotion=2.0)
    assert NOTHING not in guidance.branch_weights(0, 5, 1.0)
    assert guidance.branch_weights(4, 5, 1.0)[NOTHING] == pytest.approx(-2.0)


def test_noise_levels_outside_the_interval_are_not_guided():
    guidance = Guidance(identity=1.5, audio=3.0, emotion=2.0, sigmas=(0.5, 20.0))
    assert guidance.branch_weights(0, 5, 20.1) == {EVERYTHING: 1.0}
    assert guidance.branch_weights(4, 5, 0.4) == {EVERYTHING: 1.0}
    assert guidance.branch_weights(1, 5, 20.0) == Guidance(1.5, 3.0, 2.0).branch_weights(1, 5, 20.0)


@pytest.mark.parametrize("num_frames", [1, 3, 4, 5, 9, 23])
@pytest.mark.parametrize(("overlap", "shift"), [(0, 1), (1, 3), (3, 2)])
def test_sliding_windows_cover_the_clip_without_wrapping(num_frames, overlap, shift):
    plan = WindowPlan(4, overlap, shift)
    assert plan.num_padding_frames == 0
    for step in range(6):
        index = plan.frame_indices(num_frames, step)
        assert index.flatten().unique().tolist() == list(range(num_frames))
        assert index.shape[1] == min(4, num_frames)
        assert (index.diff(dim=1) == 1).all()
        assert len(index.unique(dim=0)) == len(index)


def test_short_clip_is_one_window():
    assert len(WindowPlan(25).frame_indices(25, step=3)) == 1


@pytest.mark.parametrize("overlap", [-1, 4, 7])
def test_windows_without_progress_are_refused(overlap):
    with pytest.raises(DicetalkError, match="overlap"):
        WindowPlan(4, overlap)
