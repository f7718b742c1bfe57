"""Conditioning of a clip at full size: speech and emotion to tokens.

python -m benchmarks.conditioning --frames 100 --out conditioning.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import plain
from benchmarks.measure import compare, report
from benchmarks.models import normal
from dicetalk.models.emotion import EmotionModel
from dicetalk.models.projection import AudioProjection


def run(frames: int, repeats: int) -> dict:
    torch.manual_seed(0)
    audio_projection, emotion_model = AudioProjection().eval(), EmotionModel().eval()
    windows, prior = normal(frames, 10, 5, 384, seed=1), normal(256, seed=2)

    def frame_by_frame() -> torch.Tensor:
        tokens = plain.condition_tokens(audio_projection, emotion_model, windows, prior)
        return torch.stack([tokens[0], *(item[:1].expand_as(tokens[0]) for item in tokens[1:])])

    @torch.no_grad()
    def at_once() -> torch.Tensor:
        audio = audio_projection(torch.cat([torch.zeros_like(windows[:1]), windows])[None])
        emotion = emotion_model(torch.stack([torch.zeros_like(prior), prior])[None]).tokens[0]
        parts = (audio[0, 1:], audio[0, :1], emotion[1:], emotion[:1])
        return torch.stack([part.expand(frames, -1, -1) for part in parts])

    return compare(f"conditioning, {frames} frames", frame_by_frame, at_once, repeats, rtol=1e-4, atol=2e-5)


def main(
    frames: int = 100, repeats: int = 3, threads: int = 1, out: Annotated[Path | None, typer.Option()] = None
) -> None:
    torch.set_num_threads(threads)
    report([run(frames, repeats)], out)


if __name__ == "__main__":
    typer.run(main)
