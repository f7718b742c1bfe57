"""A few videos during training: people never trained on, at strong emotions, always the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dicetalk.compute.precision import autocast
from dicetalk.config import Generate
from dicetalk.data.dataset import DiffusionBatches
from dicetalk.data.mp4 import write_video
from dicetalk.labels import NEUTRAL
from dicetalk.models.pipeline import DiceTalkPipeline
from dicetalk.training.parallel import process_index

NUM_INFERENCE_STEPS = 4  # enough to see faces, mouths and brows, and cheap


class SampleVideos:
    """Generates one window per chosen clip from its sound, its class's prior and the person's neutral face.

    Args:
        pipeline: shares its networks with the training.
        batches: windows of held-out identities.
        class_priors: class means in the order of `dicetalk.labels.CLASSES` `(22, dim)`.
        fps: frame rate of the model.
        precision: of the training.
        settings: noise range, guidance scales and seed of generation.
        count: number of clips.
    """

    def __init__(
        self,
        pipeline: DiceTalkPipeline,
        batches: DiffusionBatches,
        class_priors: np.ndarray,
        fps: float,
        precision: str,
        settings: Generate,
        count: int,
    ):
        self.pipeline, self.fps, self.precision, self.settings = pipeline, fps, precision, settings
        self.table = batches.clips.table
        self.rows = choose_rows(self.table, count)
        references = np.array([_portrait_row(self.table, row) for row in self.rows])
        first = np.zeros(len(self.rows), int)
        self.batch = batches.load(self.rows, first, references, first)
        self.priors = torch.from_numpy(class_priors)[self.batch.classes]

    @torch.no_grad()
    def write(self, folder: Path) -> None:
        """Write `<clip>.mp4`, without sound; the main process writes what all of them may have to compute."""
        for row, frames in zip(self.rows.tolist(), self._generate(), strict=True):
            if process_index() == 0:
                write_video(folder / f"{self.table.at[row, 'clip_id']}.mp4", frames, self.fps)

    def _generate(self) -> Iterator[np.ndarray]:
        pipeline, settings = self.pipeline, self.settings
        scheduler, pipeline.scheduler = (
            pipeline.scheduler,
            pipeline.denoiser.noise.scheduler(settings.sigma_min, settings.sigma_max),
        )
        pipeline.set_progress_bar_config(disable=True)
        device = pipeline.denoiser.network.device
        latents = self.batch.reference_latents.to(device) / pipeline.vae.config.scaling_factor
        with autocast(device, self.precision):
            portraits = pipeline.vae.decode(latents).sample.float().clamp(-1, 1)
            videos = pipeline(
                image=portraits,
                audio_windows=self.batch.audio_windows,
                emotion_prior=self.priors,
                face_mask=self.batch.face_masks,
                num_inference_steps=NUM_INFERENCE_STEPS,
                identity_scale=settings.identity_scale,
                audio_scale=settings.audio_scale,
                emotion_scale=settings.emotion_scale,
                guidance_sigmas=settings.guidance_sigmas,
                fps=self.fps,
                generator=[torch.Generator().manual_seed(settings.seed + i) for i in range(len(latents))],
                output_type="np",
            ).frames
        pipeline.scheduler = scheduler
        for video in videos:
            yield (video * 255).round().astype(np.uint8)


def choose_rows(table: pd.DataFrame, count: int) -> np.ndarray:
    """Return up to `count` rows of emotional clips: emotions and people in turn, highest levels first."""
    clips = table[table["emotion"].notna() & (table["emotion"] != NEUTRAL)]
    clips = clips.sort_values(["level", "clip_id"], ascending=[False, True], kind="stable")
    chosen: list[int] = []
    while len(chosen) < min(count, len(clips)):
        left = clips.drop(index=chosen)
        shown = clips.loc[chosen]
        # How often its emotion and its person have been chosen decides, then the order above.
        uses = left["emotion"].map(shown["emotion"].value_counts()).fillna(0) + left["identity"].map(
            shown["identity"].value_counts()
        ).fillna(0)
        chosen.append(int(uses.idxmin()))
    return np.array(chosen, int)


def _portrait_row(table: pd.DataFrame, row: int) -> int:
    """Return a neutral clip of the person, or the clip itself when there is none."""
    same = (table["identity"] == table.at[row, "identity"]) & (table["emotion"] == NEUTRAL)
    return int(same.idxmax()) if same.any() else row
