"""The whole denoising loop equals the official pipeline's."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pipeline import DiceTalkPipeline
from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.projection import AudioProjection
from dicetalk.models.sampling import make_scheduler
from dicetalk.models.unet import DiceTalkUNet
from dicetalk.models.windows import WindowPlan

OFFICIAL_WINDOWS = WindowPlan(4, 0, 1, ring=True)
CASES = {
    "base": {},
    "overlap1": {"windows": WindowPlan(4, 1, 1, ring=True)},
    "overlap2_shift3": {"windows": WindowPlan(4, 2, 3, ring=True)},
    "frames6": {"num_frames": 6},
    "guidance_ramp": {"identity_scale": (1.0, 3.0), "audio_scale": (2.0, 7.5), "emotion_scale": (2.0, 7.5)},
    "strength0.6": {"strength": 0.6},
    "noise_aug0.02": {"noise_aug_strength": 0.02},
    "global_seed7": {},
}


class GoldenPipeline(DiceTalkPipeline):
    """The reference gives CLIP's input and the tokens instead of what they are computed from."""

    def encode_conditions(self, pixels, image_latents, audio_windows, emotion_prior, face_mask):
        golden, num_frames = self.golden, audio_windows.shape[1]
        return {
            "image_tokens": self.image_encoder(golden["in.clip_image"]).image_embeds[:, None],
            "image_latents": image_latents,
            "audio_tokens": golden["in.audio_tokens"][None, :num_frames],
            "emotion_tokens": golden["in.emo_tokens"][None],
            "null_audio_tokens": golden["in.uncond_audio_tokens"][None],
            "null_emotion_tokens": golden["in.uncond_emo_tokens"][None],
            "face_mask": face_mask,
            "pose_feature": self.pose_guider(face_mask),
        }


@pytest.fixture(scope="module")
def pipeline(vectors):
    golden = vectors("denoise_loop")
    meta = golden.meta
    pose_config = meta["pose_guider_config"]
    pipeline = GoldenPipeline(
        vae=AutoencoderKLTemporalDecoder(**meta["vae_config"]),
        image_encoder=CLIPVisionModelWithProjection(CLIPVisionConfig(**meta["clip_config"])).eval(),
        unet=DiceTalkUNet.from_config(meta["unet_config"]),
        scheduler=make_scheduler(),
        audio_projection=AudioProjection(10, 5, 8, 48, 4, 32),
        emotion_model=EmotionModel(16, 32, 8, 4, 2, 24),
        pose_guider=PoseGuider(
            pose_config["conditioning_embedding_channels"], 3, pose_config["block_out_channels"]
        ),
    )
    pipeline.vae.load_state_dict(golden.weights("vae."))
    pipeline.image_encoder.load_state_dict(golden.weights("image_encoder."))
    pipeline.pose_guider.load_state_dict(golden.weights("pose_guider."))
    pipeline.unet.load_state_dict(vectors("unet_tiny_b").weights())
    pipeline.golden = golden
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(pipeline, noise, num_frames=8, windows=OFFICIAL_WINDOWS, **options):
    """Run a case; returns what each step left, padding frames included, and the final latents."""
    steps = []

    def keep(pipe, step, timestep, tensors):
        steps.append(tensors["latents"].clone())
        return tensors

    golden = pipeline.golden
    pipeline(
        golden["in.ref_image"],
        torch.zeros(num_frames, 10, 5, 8),
        torch.zeros(16),
        golden["in.face_mask"][None, :1],
        num_inference_steps=5,
        windows=windows,
        latents=noise,
        output_type="latent",
        callback_on_step_end=keep,
        **options,
    )
    return steps


@pytest.mark.parametrize("case", CASES)
def test_denoise_loop(pipeline, close, monkeypatch, case):
    golden = pipeline.golden
    noise = golden["in.initial_noise"]
    if case == "frames6":
        noise = noise[:, :10]
    if case == "global_seed7":
        torch.manual_seed(7)
        noise = None
    if case == "noise_aug0.02":
        monkeypatch.setattr("dicetalk.models.pipeline.randn_tensor", lambda *_, **__: golden["in.aug_noise"])
    steps = run(pipeline, noise, **CASES[case])
    close(steps[-1], golden[f"out.{case}"], rtol=0, atol=5e-4)


def test_every_window_of_every_step(pipeline, close):
    golden = pipeline.golden
    steps = run(pipeline, golden["in.initial_noise"])
    windows = [
        latents[:, index]
        for step, latents in enumerate(steps)
        for index in OFFICIAL_WINDOWS.frame_indices(12, step)
    ]
    close(torch.stack(windows), golden["out.base.window_latents"], rtol=0, atol=5e-4)


@torch.no_grad()
def test_encoders_and_decoder(pipeline, close):
    golden = pipeline.golden
    close(pipeline.image_encoder(golden["in.clip_image"]).image_embeds, golden["out.image_embeds"])
    close(pipeline.encode_images(golden["in.ref_image"]), golden["out.vae_mode"])
    close(pipeline.pose_guider(golden["in.face_mask"][None]), golden["out.pose_features"][:, :, 0])
    frames = pipeline.decode_latents(golden["out.base"], chunk_size=3)[:, :8]
    close(frames.transpose(1, 2), golden["out.decoded_frames"], rtol=0, atol=2e-3)
