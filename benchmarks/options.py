"""What bfloat16 and torch.compile change: one forward pass of the mid-size UNet on the CPU.

python -m benchmarks.options bfloat16 --frames 8 --size 32
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from enum import StrEnum

import torch
import typer

from benchmarks.models import TOKEN_DIM, TOKENS, face_mask, mid_size_unet, normal, pose_guider


class Option(StrEnum):
    """What is compared with float32 as it runs without either."""

    BFLOAT16 = "bfloat16"
    COMPILE = "compile"


def seconds(work: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """CPU seconds of one run, and its result."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result.float()


@torch.no_grad()
def main(option: Option, frames: int = 8, size: int = 32, repeats: int = 3, threads: int = 1) -> None:
    torch.set_num_threads(threads)
    unet = mid_size_unet()
    mask = face_mask(8 * size)
    inputs = {
        "sample": normal(3, frames, 8, size, size, seed=1),
        "encoder_hidden_states": normal(3, 1, TOKEN_DIM, seed=2),
        "added_time_ids": torch.tensor([[12.5, 8.0, 16.0]]).expand(3, -1),
        "audio_tokens": normal(3, frames, TOKENS, TOKEN_DIM, seed=3),
        "emotion_tokens": normal(3, 1, TOKENS, TOKEN_DIM, seed=4),
        "face_mask": mask,
        "pose_feature": pose_guider(unet)(mask),
    }
    timestep = torch.tensor(0.7)
    if option is Option.BFLOAT16:
        other = copy.deepcopy(unet).to(torch.bfloat16)
        other_inputs = {name: value.to(torch.bfloat16) for name, value in inputs.items()}
    else:
        other, other_inputs = torch.compile(unet), inputs

    def plain() -> torch.Tensor:
        return unet(timestep=timestep, **inputs).sample

    def changed() -> torch.Tensor:
        return other(timestep=timestep, **other_inputs).sample

    started = time.monotonic()
    seconds(changed)  # compiles
    print(f"first pass: {time.monotonic() - started:.0f} s by the clock")
    ratios = []
    for _ in range(repeats):
        (before, expected), (after, result) = seconds(plain), seconds(changed)
        ratios.append(before / after)
        error = ((result - expected).square().mean() / expected.square().mean()).sqrt().item()
        print(f"{option.value}: {before:.2f} s, {after:.2f} s, relative error {error:.1e}")
    low, high = min(ratios), max(ratios)
    print(f"{option.value}: {statistics.median(ratios):.2f} times faster [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    typer.run(main)
