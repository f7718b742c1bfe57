"""Noise process, sampler, guidance, windows and denoising against values worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from dicetalk.errors import DicetalkError
from dicetalk.models.backbones.denoisers.svd import SvdDenoiser
from dicetalk.models.decoding import _ramp, _starts, decode_tiled, decode_video
from dicetalk.models.denoising import ClipConditions, denoise
from dicetalk.models.guidance import Guidance
from dicetalk.models.sampling import add_noise, denoised, make_scheduler, precondition, velocity_target
from dicetalk.models.token_sets import TokenSets, fits_cache
from dicetalk.models.windows import WindowPlan

NOTHING, IMAGE, IMAGE_AUDIO = (), ("image",), ("image", "audio")
EVERYTHING = ("image", "audio", "emotion")


def test_edm_coefficients_at_a_noise_level_of_three_quarters() -> None:
    found = precondition(torch.tensor([0.75, 1.0]))
    assert found.c_in.tolist() == pytest.approx([0.8, math.sqrt(0.5)])
    assert found.c_skip.tolist() == pytest.approx([0.64, 0.5])
    assert found.c_out.tolist() == pytest.approx([-0.6, -math.sqrt(0.5)])
    assert found.c_noise.tolist() == pytest.approx([0.25 * math.log(0.75), 0.0])


def test_noise_velocity_and_back_by_hand() -> None:
    clean, noise, sigma = torch.full((2, 3), 2.0), torch.full((2, 3), 4.0), torch.tensor([0.75, 0.0])
    assert add_noise(clean, noise, sigma).tolist() == [[5.0] * 3, [2.0] * 3]
    assert add_noise(clean, noise, torch.tensor(0.5)).unique().item() == 4.0
    assert velocity_target(clean, noise, sigma).tolist() == [[pytest.approx(2.0)] * 3, [4.0] * 3]
    # 0.64 * 5 - 0.6 * 2.
    assert denoised(torch.full((1, 2), 5.0), torch.full((1, 2), 2.0), torch.tensor([0.75]))[0, 0].item() == (
        pytest.approx(2.0)
    )


def test_sampler_follows_karras_from_the_highest_level_to_the_lowest_and_zero() -> None:
    scheduler = make_scheduler()
    scheduler.set_timesteps(3)
    middle = ((700.0 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    assert scheduler.sigmas.tolist() == pytest.approx([700.0, middle, 0.002, 0.0], rel=1e-4)
    assert scheduler.timesteps.tolist() == pytest.approx(
        [0.25 * math.log(s) for s in (700.0, middle, 0.002)], rel=1e-4
    )
    other = make_scheduler(0.5, 4.0)
    other.set_timesteps(2)
    assert other.sigmas.tolist() == pytest.approx([4.0, 0.5, 0.0], rel=1e-5)
    # One Euler step: noisy 5 at sigma 4, velocity 1: clean 5 / 17 - 4 / sqrt(17); the rest shrinks to 1 / 8.
    noisy = torch.full((1, 1), 5.0)
    scaled = other.scale_model_input(noisy, other.timesteps[0])
    assert scaled.item() == pytest.approx(5 / math.sqrt(17), rel=1e-5)
    clean = 5 / 17 - 4 / math.sqrt(17)
    stepped = other.step(torch.ones(1, 1), other.timesteps[0], noisy).prev_sample
    assert stepped.item() == pytest.approx(clean + (5 - clean) / 8, rel=1e-4)


def test_sampler_and_scales_are_the_published_ones() -> None:
    # `scheduler/scheduler_config.json` of stable-video-diffusion-img2vid-xt.
    published = {
        "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction", "interpolation_type": "linear", "use_karras_sigmas": True,
        "sigma_min": 0.002, "sigma_max": 700.0, "timestep_spacing": "leading", "timestep_type": "continuous",
        "steps_offset": 1,
    }  # fmt: skip
    config = make_scheduler().config
    assert {name: config[name] for name in published} == published
    # The released demo: `ref_scale` 3 and `emo_scale` 6.
    assert Guidance().branch_weights(0, 25, 1.0) == Guidance(3.0, 6.0, 6.0).branch_weights(0, 25, 1.0)


def test_branch_weights_of_three_scales_and_of_ramps() -> None:
    weights = Guidance(3.0, 6.0, 4.0).branch_weights(0, 10, 1.0)
    # v_0 + 3 (v_i - v_0) + 6 (v_ia - v_i) + 4 (v_iae - v_ia)
    assert weights == {
        NOTHING: -2.0,
        IMAGE: -3.0,
        IMAGE_AUDIO: 2.0,
        EVERYTHING: 4.0,
    }
    ramp = Guidance((1.0, 3.0), (2.0, 6.0), (2.0, 6.0))
    at_a_quarter = ramp.branch_weights(1, 5, 1.0)
    assert at_a_quarter == {NOTHING: -0.5, IMAGE: -1.5, EVERYTHING: 3.0}
    assert ramp.branch_weights(0, 1, 1.0) == {IMAGE: -1.0, EVERYTHING: 2.0}
    limited = Guidance(3.0, 6.0, 6.0, (0.5, 2.0))
    assert (
        limited.branch_weights(0, 5, 0.5)
        == limited.branch_weights(0, 5, 2.0)
        == Guidance(3.0, 6.0, 6.0).branch_weights(0, 5, 1.0)
    )


def test_windows_by_hand() -> None:
    def frames(plan: WindowPlan, num_frames: int, step: int) -> list[list[int]]:
        return plan.frame_indices(num_frames, step).tolist()

    plan = WindowPlan(4, 1, 2)
    assert frames(plan, 9, 0) == [[0, 1, 2, 3], [3, 4, 5, 6], [5, 6, 7, 8]]
    assert frames(plan, 9, 1) == [[0, 1, 2, 3], [1, 2, 3, 4], [4, 5, 6, 7], [5, 6, 7, 8]]
    assert frames(plan, 9, 2) == frames(plan, 9, 0)  # shifted by 4, the size
    assert frames(plan, 3, 1) == [[0, 1, 2]]
    ring = WindowPlan(4, 0, 1, ring=True)
    assert ring.num_padding_frames == 4 and plan.num_padding_frames == 0
    assert frames(ring, 8, 0) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert frames(ring, 8, 3) == [[5, 6, 7, 0], [1, 2, 3, 4]]
    assert (WindowPlan().size, WindowPlan().overlap, WindowPlan().shift) == (25, 0, 7)
    for size, overlap in ((0, 0), (4, 4), (4, -1)):
        with pytest.raises(DicetalkError, match="overlap"):
            WindowPlan(size, overlap)


# --- denoising with a network whose velocity says which conditions it was given


def conditions(clips: int = 2, frames: int = 4) -> ClipConditions:
    """Portrait latents of 1 and 2, audio tokens 10 per clip plus the frame, emotion tokens 100 per clip."""
    numbers = torch.arange(1.0, clips + 1)
    audio = 10 * numbers[:, None] + torch.arange(float(frames))
    return ClipConditions(
        image_tokens=numbers[:, None, None] / 10,
        audio_tokens=audio[..., None, None],
        emotion_tokens=100 * numbers[:, None, None, None],
        null_audio_tokens=torch.full((1, 1, 1, 1), -1.0),
        null_emotion_tokens=torch.full((1, 1, 1, 1), -2.0),
        image_latents=numbers[:, None, None, None],
        added_time_ids=numbers[:, None] * torch.ones(3),
        face_mask=numbers[:, None, None, None],
        pose_feature=numbers[:, None, None, None],
    )


class Unet:
    dtype = torch.float32

    def __init__(self, velocity) -> None:
        self.velocity, self.seen = velocity, []

    def spatial_adapter_dims(self) -> int:
        return 8

    def __call__(self, **inputs) -> SimpleNamespace:
        inputs |= {n: inputs[n].gather()[..., 0, 0] for n in ("audio_tokens", "emotion_tokens")}
        self.seen.append(inputs)
        return SimpleNamespace(sample=self.velocity(inputs), features=None)


def test_each_branch_sees_its_conditions() -> None:
    unet = Unet(lambda inputs: torch.zeros_like(inputs["sample"][:, :, :1]))
    scheduler = make_scheduler(0.5, 4.0)
    scheduler.set_timesteps(1)
    latents = torch.arange(8.0).reshape(2, 4, 1, 1, 1)
    denoise(SvdDenoiser(unet), scheduler, latents, conditions(), Guidance(3.0, 6.0, 4.0), WindowPlan(4))
    (inputs,) = unet.seen
    assert inputs["sample"].shape == (8, 4, 2, 1, 1)  # two clips of four branches, in this order
    noisy, image = inputs["sample"].unbind(2)
    scaled = (noisy * math.sqrt(17)).flatten(1)[[0, 4]]
    assert torch.allclose(scaled, torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7]]), atol=1e-5)
    assert image.flatten(1)[:, 0].tolist() == [0, 1, 1, 1, 0, 2, 2, 2]
    assert inputs["encoder_hidden_states"].flatten().tolist() == pytest.approx(
        [0, 0.1, 0.1, 0.1, 0, 0.2, 0.2, 0.2]
    )
    none, first, second = [-1.0] * 4, [10, 11, 12, 13], [20, 21, 22, 23]
    assert inputs["audio_tokens"].tolist() == [none, none, first, first, none, none, second, second]
    emotion = inputs["emotion_tokens"][:, 0].tolist()
    assert emotion == [-2, -2, -2, 100, -2, -2, -2, 200]
    for name in ("added_time_ids", "face_mask", "pose_feature"):
        assert inputs[name].flatten(1)[:, 0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2], name
    assert inputs["timestep"].item() == pytest.approx(0.25 * math.log(4.0))


@pytest.mark.parametrize("max_batch", [None, 3])
def test_velocities_of_branches_are_combined_and_windows_averaged(max_batch: int | None) -> None:
    def velocity(inputs: dict) -> Tensor:
        # 1 for the image, 10 for speech, 100 for the emotion, once, and three times from frame 2 on.
        image = (inputs["sample"][:, 0, 1, 0, 0] > 0).float()
        audio, emotion = ((inputs[n] > 0).any(1).float() for n in ("audio_tokens", "emotion_tokens"))
        window = 1.0 + 2.0 * (inputs["audio_tokens"][:, 0] >= 12).float() + 0.0 * image
        value = (image + 10 * audio + 100 * emotion) * window
        return value[:, None, None, None, None].expand(-1, inputs["sample"].shape[1], 1, 1, 1)

    unet = Unet(velocity)
    scheduler = make_scheduler(0.5, 4.0)
    scheduler.set_timesteps(2)
    steps = []
    guidance, plan = Guidance(1.0, 1.0, 2.0), WindowPlan(3, 2, 0)
    latents = denoise(
        SvdDenoiser(unet),
        scheduler,
        torch.zeros(1, 5, 1, 1, 1),
        conditions(1, 5),
        guidance,
        plan,
        max_batch,
        on_step=lambda step, timestep, latents: steps.append((step, latents)) or torch.zeros_like(latents),
    )
    # v = v_image_audio + 2 (v_everything - v_image_audio) = 11 + 2 * 100, three times that from frame 2 on:
    # windows 0-2, 1-3 (first token 11) and 2-4 (first token 12). Frame 2 lies in all of them.
    each = [211.0, 211.0, 211 * 5 / 3, 211 * 2.0, 211 * 3.0]
    # From noisy 0 at sigma 4: clean is -4 v / sqrt(17), an eighth of the rest stays.
    expected = [-4 * v / math.sqrt(17) * (1 - 0.5 / 4) for v in each]
    assert steps[0][0] == 0 and steps[0][1].flatten().tolist() == pytest.approx(expected, rel=1e-4)
    # The last step goes to 0: clean latents of sigma 0.5.
    last = [-0.5 * v / math.sqrt(1.25) for v in each]
    assert steps[1][1].flatten().tolist() == pytest.approx(last, rel=1e-4)
    assert not latents.any() and len(unet.seen) == (2 if max_batch is None else 4)
    if max_batch:
        assert [len(inputs["sample"]) for inputs in unet.seen] == [3, 3, 3, 3]


def test_a_later_start_skips_the_noisier_steps() -> None:
    unet = Unet(lambda inputs: torch.zeros_like(inputs["sample"][:, :, :1]))
    scheduler = make_scheduler(0.5, 4.0)
    scheduler.set_timesteps(3)
    guided = []
    guidance = SimpleNamespace(branch_weights=lambda *given: guided.append(given) or {EVERYTHING: 1.0})
    denoise(
        SvdDenoiser(unet),
        scheduler,
        torch.ones(1, 4, 1, 1, 1),
        conditions(1),
        guidance,
        WindowPlan(4),
        first_step=1,
    )
    middle = ((4.0 ** (1 / 7) + 0.5 ** (1 / 7)) / 2) ** 7
    assert guided == [(0, 2, pytest.approx(middle, rel=1e-4)), (1, 2, pytest.approx(0.5))]


def test_padding_frames_are_unconditional() -> None:
    padded = conditions().padded(3)
    frames = torch.tensor([2, 3, 4, 6])
    assert (conditions().num_padding_frames, padded.num_padding_frames) == (0, 3)
    # Set 0 is the unconditional one; clip 1 has frames 5 to 8 of the audio sets and set 2 of the emotions.
    assert padded.set_index(padded.audio_tokens, 1, frames).tolist() == [7, 8, 0, 0]
    assert padded.set_index(padded.emotion_tokens, 1, frames).tolist() == [2, 2, 0, 0]
    assert padded.token_sets(8)["audio"].tokens.flatten().tolist() == [-1, 10, 11, 12, 13, 20, 21, 22, 23]
    assert padded.token_sets(8)["emotion"].tokens.flatten().tolist() == [-2, 100, 200]


def test_token_sets_are_kept_when_they_fit_into_a_gibibyte() -> None:
    sets = torch.zeros(1024, 2, 1)
    # Keys and values of 4 bytes: 1024 * 2 * 2 * 4 * 65536 is exactly 2^30.
    assert fits_cache(sets, 65536) and not fits_cache(sets, 65537)
    assert fits_cache(sets.half(), 2 * 65536) and not fits_cache(sets.half(), 2 * 65536 + 1)
    picked = TokenSets(torch.arange(6.0).reshape(3, 2, 1), torch.tensor([[2, 0]]), keep=True)
    assert picked.gather().flatten().tolist() == [4, 5, 0, 1]
    key, value = picked.keys_values(1, lambda x: 10 * x, lambda x: -x)
    assert key.flatten().tolist() == [40, 50, 0, 10] and value.flatten().tolist() == [-4, -5, 0, -1]
    other = picked.at(torch.tensor([[1, 1]]))
    assert other.keys_values(1, None, None)[0].flatten().tolist() == [20, 30, 20, 30]  # kept from before


# --- decoding


def test_chunks_and_tiles_decode_to_the_same_picture() -> None:
    latents = torch.rand(5, 1, 9, 7, generator=torch.Generator().manual_seed(0))
    sizes = []

    class Vae:
        def decode(self, part: Tensor) -> SimpleNamespace:
            sizes.append(tuple(part.shape))
            return SimpleNamespace(
                sample=part.repeat_interleave(2, -1).repeat_interleave(2, -2).expand(-1, 3, -1, -1)
            )

        def forward(self, sample: Tensor) -> None: ...

    class VideoVae(Vae):
        def decode(self, part: Tensor, num_frames: int) -> SimpleNamespace:
            assert num_frames == len(part)
            return super().decode(part)

        def forward(self, sample: Tensor, num_frames: int) -> None: ...

    whole = decode_video(Vae(), latents, 2, None)
    assert whole.shape == (5, 3, 18, 14) and [size[0] for size in sizes] == [2, 2, 1]
    assert torch.equal(whole[:, :, ::2, ::2], latents.expand(-1, 3, -1, -1))
    assert torch.equal(decode_video(VideoVae(), latents, 2, None), whole)
    sizes.clear()
    assert torch.allclose(decode_video(Vae(), latents, 5, 4), whole, atol=1e-5)
    assert set(sizes) == {(5, 1, 4, 4)} and len(sizes) == 3 * 2
    assert torch.allclose(decode_video(Vae(), latents, 5, 16), whole, atol=1e-5)


def test_tiles_overlap_by_a_quarter_and_fade() -> None:
    assert (
        _starts(9, 4) == [0, 3, 5]
        and _starts(4, 4) == [0]
        and _starts(3, 4) == [0]
        and _starts(10, 8) == [0, 2]
    )
    assert _ramp(8, 8).tolist() == [0.25, 0.75, 1, 1, 1, 1, 0.75, 0.25]
    assert _ramp(3, 8).tolist() == [0.25, 0.75, 0.25]
    assert _ramp(2, 2).tolist() == [0.5, 0.5]
    # Two tiles of 4 that say 0 and 8 and overlap by one: there the mean.
    values = iter([0.0, 8.0])
    blended = decode_tiled(lambda part: torch.full((1, 1, 4, 4), next(values)), torch.zeros(1, 1, 4, 7), 4)
    assert blended[0, 0, 1].tolist() == [0, 0, 0, 4, 8, 8, 8]
