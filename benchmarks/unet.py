"""One forward pass of the mid-size UNet: three guidance branches of one window.

python -m benchmarks.unet --frames 8 --size 32 --out unet.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.measure import compare, report
from benchmarks.models import TOKEN_DIM, TOKENS, face_mask, mid_size_unet, normal, pose_guider
from benchmarks.plain import PlainUNet, pose_features
from dicetalk.models.unet import DiceTalkUNet


def run(unet: DiceTalkUNet, frames: int, size: int, repeats: int) -> dict:
    plain = PlainUNet(unet)
    sample, image = normal(3, frames, 8, size, size, seed=1), normal(3, 1, TOKEN_DIM, seed=2)
    audio, emotion = (normal(3, frames, TOKENS, TOKEN_DIM, seed=seed) for seed in (3, 4))
    time_ids, timestep = torch.tensor([[12.5, 8.0, 16.0]]).expand(3, -1), torch.tensor(0.7)
    mask = face_mask(8 * size)
    guider = pose_guider(unet)
    pose = pose_features(guider, mask, 1)
    repeated = {
        "image": image[:, None].repeat(1, frames, 1, 1),
        "mask": mask.repeat(3 * frames, 1, 1, 1),
        "pose": pose[None].repeat(3, frames, 1, 1, 1),
    }

    @torch.no_grad()
    def by_frame() -> torch.Tensor:
        return plain(sample, timestep, time_ids=time_ids, audio=audio, emotion=emotion, **repeated)

    @torch.no_grad()
    def ours() -> torch.Tensor:
        return unet(sample, timestep, image, time_ids, audio, emotion, mask, pose).sample

    name = f"UNet forward, 3 x {frames} frames, {size} x {size}"
    return compare(name, by_frame, ours, repeats, rtol=1e-4, atol=2e-5)


def main(
    frames: int = 8,
    size: int = 32,
    repeats: int = 5,
    threads: int = 1,
    out: Annotated[Path | None, typer.Option()] = None,
) -> None:
    torch.set_num_threads(threads)
    report([run(mid_size_unet(), frames, size, repeats)], out)


if __name__ == "__main__":
    typer.run(main)
