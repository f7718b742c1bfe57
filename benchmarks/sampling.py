"""Whole sampling of a clip with the mid-size UNet: pose guider, windows, guidance, Euler steps.

python -m benchmarks.sampling --frames 100 --out sampling.json

Both sides use the released ring of windows, whose extra frames are denoised, too. Ours runs one guidance
branch after the other: on a CPU the smaller working set is faster.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import plain
from benchmarks.measure import compare, report
from benchmarks.models import TOKEN_DIM, TOKENS, face_mask, mid_size_unet, normal, pose_guider
from dicetalk.models.backbones.denoisers.svd import SvdDenoiser
from dicetalk.models.denoising import ClipConditions, denoise
from dicetalk.models.guidance import Guidance
from dicetalk.models.sampling import make_scheduler
from dicetalk.models.unet import DiceTalkUNet
from dicetalk.models.windows import WindowPlan

SCALES = (3.0, 6.0)  # image; speech and emotion, as released
TIME_IDS = (12.5, 8.0, 16.0)


def run(unet: DiceTalkUNet, frames: int, window: int, size: int, steps: int, repeats: int) -> dict:
    guider, by_frame = pose_guider(unet), plain.PlainUNet(unet)
    mask = face_mask(8 * size)
    windows = WindowPlan(window, shift=7, ring=True)
    noise = 700 * normal(1, frames + window, 4, size, size, seed=1)
    image, image_latents = normal(1, TOKEN_DIM, seed=2), normal(4, size, size, seed=3)
    audio, emotion = normal(frames, TOKENS, TOKEN_DIM, seed=4), normal(1, TOKENS, TOKEN_DIM, seed=5)
    null_audio, null_emotion = (normal(1, TOKENS, TOKEN_DIM, seed=seed) for seed in (6, 7))

    def scheduler():
        made = make_scheduler()
        made.set_timesteps(steps)
        return made

    def official() -> torch.Tensor:
        total = frames + window
        conditions = plain.PlainConditions(
            image_tokens=image,
            image_latents=image_latents,
            audio=torch.cat([audio, null_audio.expand(window, -1, -1)]),
            null_audio=null_audio.repeat(total, 1, 1),
            emotion=torch.cat([emotion.repeat(frames, 1, 1), null_emotion.expand(window, -1, -1)]),
            null_emotion=null_emotion.repeat(total, 1, 1),
            mask=mask,
            pose=plain.pose_features(guider, mask, total),
            time_ids=torch.tensor([TIME_IDS]),
        )
        return plain.denoise(by_frame, scheduler(), noise, conditions, SCALES, window, 7)[:, :frames]

    @torch.no_grad()
    def ours() -> torch.Tensor:
        conditions = ClipConditions(
            image_tokens=image[None],
            image_latents=image_latents[None],
            audio_tokens=audio[None],
            emotion_tokens=emotion[None],
            null_audio_tokens=null_audio[None],
            null_emotion_tokens=null_emotion[None],
            added_time_ids=torch.tensor([TIME_IDS]),
            face_mask=mask,
            pose_feature=guider(mask),
        ).padded(window)
        guidance = Guidance(SCALES[0], SCALES[1], SCALES[1])
        return denoise(SvdDenoiser(unet), scheduler(), noise, conditions, guidance, windows, max_batch=1)[
            :, :frames
        ]

    name = f"sampling {frames} frames, {steps} steps, windows of {window}, {size} x {size}"
    return compare(name, official, ours, repeats, rtol=0, atol=5e-4)


def main(
    frames: int = 100,
    window: int = 25,
    size: int = 32,
    steps: int = 2,
    repeats: int = 1,
    threads: int = 1,
    out: Annotated[Path | None, typer.Option()] = None,
) -> None:
    torch.set_num_threads(threads)
    report([run(mid_size_unet(), frames, window, size, steps, repeats)], out)


if __name__ == "__main__":
    typer.run(main)
