"""The whole denoising loop equals the official pipeline's."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dicetalk.models.denoising import ConditionTokens
from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pipeline import DiceTalkPipeline
from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.projection import AudioProjection
from dicetalk.models.sampling import add_noise, make_scheduler
from dicetalk.models.unet import DiceTalkUNet
from dicetalk.models.windows import WindowPlan


def case_options(meta: dict, case: str) -> dict:
    """Translate a case of the reference's description into arguments of the pipeline, and `num_frames`."""
    settings = {**meta["base"], **meta["cases"][case]}
    guidance = []
    for number in (1, 2):
        low, high = meta["base"][f"guidance{number}"]
        ends = (
            settings.get(f"min_guidance_scale{number}", low),
            settings.get(f"max_guidance_scale{number}", high),
        )
        guidance.append(tuple(float(end) for end in ends))
    return {
        "num_frames": settings["num_frames"],
        "windows": WindowPlan(
            settings["frames_per_batch"], settings["overlap"], settings["shift_offset"], ring=True
        ),
        "num_inference_steps": settings["num_inference_steps"],
        "fps": settings["fps"],
        "motion_bucket_id": settings["motion_bucket_id"],
        "expression_bucket_id": settings["motion_bucket_id_exp"],
        "strength": settings["i2i_noise_strength"],
        "noise_aug_strength": settings["noise_aug_strength"],
        "identity_scale": guidance[0],
        "audio_scale": guidance[1],
        "emotion_scale": guidance[1],
    }


def make_pipeline(golden, unet_golden) -> DiceTalkPipeline:
    """Build the pipeline that a reference file describes; what makes the tokens is not in it."""
    meta = golden.meta
    pose, unet = meta["pose_guider_config"], meta["unet_config"]
    width = unet["cross_attention_dim"]
    pipeline = DiceTalkPipeline(
        vae=AutoencoderKLTemporalDecoder(**meta["vae_config"]),
        image_encoder=CLIPVisionModelWithProjection(CLIPVisionConfig(**meta["clip_config"])).eval(),
        unet=DiceTalkUNet.from_config(unet),
        scheduler=make_scheduler(meta["scheduler"]["sigma_min"], meta["scheduler"]["sigma_max"]),
        audio_projection=AudioProjection(output_dim=width, hidden_dim=8),
        emotion_model=EmotionModel(dim=width, num_codes=2, num_tokens=1, num_heads=1, hidden_dim=8),
        pose_guider=PoseGuider(pose["conditioning_embedding_channels"], 3, tuple(pose["block_out_channels"])),
    )
    pipeline.vae.load_state_dict(golden.weights("vae."))
    pipeline.image_encoder.load_state_dict(golden.weights("image_encoder."))
    pipeline.pose_guider.load_state_dict(golden.weights("pose_guider."))
    pipeline.unet.load_state_dict(unet_golden.weights())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def golden(vectors):
    return vectors("denoise_loop")


@pytest.fixture(scope="module")
def pipeline(golden, vectors):
    return make_pipeline(golden, vectors("unet_tiny_b"))


@torch.no_grad()
def run(pipeline, golden, noise, num_frames, **options):
    """Run a case; returns the latents before the first step and after each one, padding frames included."""
    steps = []

    def keep(pipe, step, timestep, tensors):
        steps.append(tensors["latents"].clone())
        return tensors

    tokens = ConditionTokens(
        image_tokens=pipeline.image_encoder(golden["in.clip_image"]).image_embeds[:, None],
        audio_tokens=golden["in.audio_tokens"][None, :num_frames],
        emotion_tokens=golden["in.emo_tokens"][None],
        null_audio_tokens=golden["in.uncond_audio_tokens"][None],
        null_emotion_tokens=golden["in.uncond_emo_tokens"][None],
    )
    pipeline(
        golden["in.ref_image"],
        face_mask=golden["in.face_mask"][None, :1],
        tokens=tokens,
        latents=noise,
        output_type="latent",
        callback_on_step_end=keep,
        **options,
    )
    return steps


CASES = (
    "base",
    "overlap1",
    "overlap2_shift3",
    "frames6",
    "guidance_ramp",
    "strength0.6",
    "noise_aug0.02",
    "global_seed7",
)


def test_no_case_is_left_out(golden):
    assert set(CASES) == set(golden.meta["cases"])


@pytest.mark.parametrize("case", CASES)
def test_denoise_loop(pipeline, golden, close, monkeypatch, case):
    options = case_options(golden.meta, case)
    noise = golden["in.initial_noise"][:, : options["num_frames"] + options["windows"].num_padding_frames]
    if case.startswith("global_seed"):
        torch.manual_seed(int(case.removeprefix("global_seed")))
        noise = None
    if options["noise_aug_strength"]:  # the reference fixes the noise rather than its seed
        monkeypatch.setattr("dicetalk.models.pipeline.randn_tensor", lambda *_, **__: golden["in.aug_noise"])
    steps = run(pipeline, golden, noise, **options)
    close(steps[-1], golden[f"out.{case}"], rtol=0, atol=5e-4)


def test_every_window_of_every_step(pipeline, golden, close):
    options = case_options(golden.meta, "base")
    steps = run(pipeline, golden, golden["in.initial_noise"], **options)
    windows = [
        latents[:, index]
        for step, latents in enumerate(steps)
        for index in options["windows"].frame_indices(latents.shape[1], step)
    ]
    close(torch.stack(windows), golden["out.base.window_latents"], rtol=0, atol=5e-4)


@pytest.mark.parametrize("case", ["base", "strength0.6", "global_seed7"])
@torch.no_grad()
def test_initial_latents(pipeline, golden, close, case):
    """The reference latent with the noise of the first step that runs; `global_seed7` fixes the draws."""
    steps = golden.meta["base"]["num_inference_steps"]
    strength = case_options(golden.meta, case)["strength"]
    noise = golden["in.initial_noise"]
    if case == "global_seed7":
        torch.manual_seed(7)
        torch.randn(golden["in.ref_image"].shape)
        noise = torch.randn(golden["in.global_seed7.latent_noise"].shape)
        assert torch.equal(noise, golden["in.global_seed7.latent_noise"])
    pipeline.scheduler.set_timesteps(steps)
    sigma = pipeline.scheduler.sigmas[steps - int(steps * strength)]
    clean = pipeline.vae.config.scaling_factor * pipeline.encode_images(golden["in.ref_image"])[:, None]
    close(add_noise(clean, noise, sigma), golden[f"out.{case}.initial_latents"], atol=5e-4)


@torch.no_grad()
def test_encoders_and_decoder(pipeline, golden, close):
    close(pipeline.image_encoder(golden["in.clip_image"]).image_embeds, golden["out.image_embeds"])
    close(pipeline.encode_images(golden["in.ref_image"]), golden["out.vae_mode"])
    close(pipeline.pose_guider(golden["in.face_mask"][None]), golden["out.pose_features"][:, :, 0])
    chunk = golden.meta["base"]["decode_chunk_size"]
    expected = golden["out.decoded_frames"].transpose(1, 2)
    frames = pipeline.decode_latents(golden["out.base"], chunk)[:, : expected.shape[1]]
    close(frames, expected, rtol=0, atol=2e-3)
