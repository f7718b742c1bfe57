"""Videos of the test split: each emotional clip's own speech and label on a neutral portrait of its identity.

The reference image is the first frame of the identity's first neutral clip, as emotional talking-head work
on MEAD does (EAT), so the emotion cannot be copied from the image.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dicetalk.compute.workers import in_processes
from dicetalk.config import Generate, GenerateCompute
from dicetalk.data.dataset import EncodedClips
from dicetalk.data.shards import Sample, read_samples
from dicetalk.data.speech import TOKENS_PER_TICK
from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_directory, is_as_noted, noted_path
from dicetalk.generation.clip import (
    Request,
    TalkingModel,
    at_level,
    generate_frames,
    load_model,
    prior_of_speech,
    write_result,
)
from dicetalk.generation.portrait import Portrait
from dicetalk.labels import NEUTRAL
from dicetalk.progress import track

SYSTEMS = {"P": "ours", "V": "ours_v", "A": "ours_a"}
REFERENCE_FRAME = 0


@dataclass(frozen=True)
class Job:
    """One video: its row of the manifest and where its inputs are.

    Attributes:
        row: position in the table of test clips.
        manifest: columns of `manifest.parquet`.
    """

    row: int
    manifest: dict[str, Any]

    @property
    def path(self) -> str:
        """Path relative to the output folder."""
        return self.manifest["video_path"]

    @property
    def guidance_level(self) -> int | None:
        """The level that is asked for; none where the emotion is shown or heard, not named."""
        return self.manifest["level"] if self.manifest["mode"] == "P" else None


class SplitGenerator:
    """What it takes to generate videos of the test split; each worker has its own.

    Args:
        model: folder of the trained model.
        encoded: `data/encoded/<set>` of the emotional corpora.
        processed: their `data/processed/<set>`.
        settings: the section of `params.yaml`.
        threads: of PyTorch.
        run_dir: where finished videos are put.
    """

    def __init__(
        self,
        model: Path,
        encoded: Sequence[Path],
        processed: Sequence[Path],
        settings: Generate,
        threads: int,
        run_dir: Path,
    ):
        torch.set_num_threads(threads)
        self.model, self.settings, self.run_dir = load_model(model), settings, run_dir
        self.test, self.train = EncodedClips(encoded, "test"), EncodedClips(encoded, "train")
        self.jobs = plan_jobs(self.test, self.train, settings, self.model.frame_stride)
        self.samples = _read_samples(processed, self.test, self.jobs)

    def write(self, batch: list[Job]) -> None:
        """Generate videos of one length and guidance and write them."""
        fps, provenance = self.model.settings["fps"], self.model.provenance(self.settings)
        requests = [
            _request(self.model, job, self.test, self.train, self.samples, self.settings.seed)
            for job in batch
        ]
        level = batch[0].guidance_level
        settings = self.settings if level is None else at_level(self.settings, level)
        for job, frames in zip(batch, generate_frames(self.model, requests, settings), strict=True):
            sound = self.samples[job.manifest["clip_id"]].audio()
            with noted_path(self.run_dir / job.path) as temporary:
                write_result(temporary, frames, sound, fps, provenance)


_own: SplitGenerator  # of a worker process


def _start_worker(*arguments: Any) -> None:
    global _own
    _own = SplitGenerator(*arguments)


def _work(batch: list[Job]) -> None:
    _own.write(batch)


def generate_test_split(
    model: Path,
    encoded: Sequence[Path],
    processed: Sequence[Path],
    settings: Generate,
    compute: GenerateCompute,
    run_dir: Path,
    output: Path,
) -> dict[str, int]:
    """Generate the videos of all modes and `manifest.parquet`; a killed run continues.

    Videos do not depend on the number of workers: a batch is computed as a whole by one of them.

    Args:
        model: folder of the trained model.
        encoded: `data/encoded/<set>` of the emotional corpora.
        processed: their `data/processed/<set>`.
        settings: the section of `params.yaml`.
        compute: its part of `compute`.
        run_dir: where finished videos wait for the rest.
        output: `outputs/generated`.

    Returns:
        Number of videos per system.
    """
    arguments = (model, encoded, processed, settings, compute.threads, run_dir)
    here = SplitGenerator(*arguments)
    jobs = here.jobs
    batches = [batch for batch in _batches(jobs, settings.batch_clips) if not _done(batch, run_dir)]
    if compute.workers == 1:
        for batch in track(batches, "generate"):
            here.write(batch)
    elif batches:
        with in_processes(
            compute.workers, _work, batches, prepare=_start_worker, arguments=arguments
        ) as results:
            for _ in track(results, "generate", total=len(batches)):
                pass
    with atomic_directory(output) as folder:
        for job in jobs:
            (folder / job.path).parent.mkdir(exist_ok=True)
            shutil.copyfile(run_dir / job.path, folder / job.path)
        pd.DataFrame([job.manifest for job in jobs]).to_parquet(folder / "manifest.parquet", index=False)
    return {SYSTEMS[mode]: sum(job.manifest["mode"] == mode for job in jobs) for mode in settings.modes}


def example_videos(output: Path) -> list[Path]:
    """Return one video of mode P per emotion, at its highest level, of the first identity."""
    manifest = pd.read_parquet(output / "manifest.parquet")
    ours = manifest[manifest["system"] == SYSTEMS["P"]].sort_values(
        ["level", "identity"], ascending=[False, True]
    )
    return [output / path for path in ours.groupby("emotion")["video_path"].first()]


def plan_jobs(test: EncodedClips, train: EncodedClips, settings: Generate, frame_stride: int) -> list[Job]:
    """Return one job per mode and chosen clip, with its reference image and, in mode V, video.

    Raises:
        DicetalkError: when an identity has no neutral clip, or a class no training clip for mode V.
    """
    references = {identity: _neutral_clip(rows) for identity, rows in test.table.groupby("identity")}
    jobs = []
    for mode in settings.modes:
        for row in choose_clips(test.table, settings.max_clips_per_mode.get(mode, len(test)), settings.seed):
            clip = test.table.loc[row]
            reference_video = _reference_video(clip, train.table, settings.seed) if mode == "V" else None
            num_frames = min(settings.num_frames, int(clip["num_frames"]) // frame_stride)
            manifest = {
                "system": SYSTEMS[mode],
                "clip_id": clip["clip_id"],
                "video_path": f"{SYSTEMS[mode]}/{clip['clip_id']}.mp4",
                "identity": clip["identity"],
                "emotion": clip["emotion"],
                "level": int(clip["level"]),
                "mode": mode,
                "reference_clip": references[clip["identity"]],
                "reference_frame": REFERENCE_FRAME,
                "reference_video": reference_video,
                "num_frames": frame_stride * num_frames,
                "fps": float(clip["fps"]),
            }
            jobs.append(Job(int(row), manifest))
    return jobs


def choose_clips(table: pd.DataFrame, count: int, seed: int) -> list[int]:
    """Return `count` row labels, evenly over the classes and random within them, in table order."""
    shuffled = table.iloc[np.random.default_rng(seed).permutation(len(table))]
    turn = shuffled.groupby(["emotion", "level"]).cumcount()
    return sorted(turn.sort_values(kind="stable").index[:count])


def _neutral_clip(rows: pd.DataFrame) -> str:
    neutral = rows[rows["emotion"] == NEUTRAL]
    if neutral.empty:
        raise DicetalkError(
            f"Test identity {rows['identity'].iloc[0]} has no neutral clip to take a portrait from."
        )
    return neutral["clip_id"].min()


def _reference_video(clip: pd.Series, train: pd.DataFrame, seed: int) -> str:
    """Return a training clip of the same class; training identities are never test identities."""
    same = train[(train["emotion"] == clip["emotion"]) & (train["level"] == clip["level"])]
    if same.empty:
        raise DicetalkError(
            f"Mode V needs a training clip of {clip['emotion']} level {clip['level']}; there is none."
        )
    rng = np.random.default_rng([seed, zlib.crc32(clip["clip_id"].encode())])
    return same["clip_id"].iloc[rng.integers(len(same))]


def _read_samples(processed: Sequence[Path], test: EncodedClips, jobs: list[Job]) -> dict[str, Sample]:
    """Return the processed clips whose sound or picture is needed, still encoded."""
    wanted = {job.manifest[name] for job in jobs for name in ("clip_id", "reference_clip")}
    rows = test.table[test.table["clip_id"].isin(wanted)]
    shards = {
        folder / f"{Path(shard).stem}.tar"
        for folder in processed
        for shard in rows["shard"][rows["set"] == folder.name].unique()
    }
    samples = (sample for shard in sorted(shards) for sample in read_samples(shard))
    return {sample.clip_id: sample for sample in samples if sample.clip_id in wanted}


def _batches(jobs: list[Job], size: int) -> Iterator[list[Job]]:
    """Group jobs of equal length and guidance into batches."""

    def kind(job: Job) -> tuple[int, int]:
        return job.manifest["num_frames"], job.guidance_level or 0

    ordered = sorted(jobs, key=lambda job: (kind(job), job.path))
    for _, group in groupby(ordered, key=kind):
        same = list(group)
        yield from (same[start : start + size] for start in range(0, len(same), size))


def _done(batch: list[Job], run_dir: Path) -> bool:
    # Whole batches only: the last bits of a video may depend on how many are computed together.
    return all(is_as_noted(run_dir / job.path) for job in batch)


def _request(
    model: TalkingModel,
    job: Job,
    test: EncodedClips,
    train: EncodedClips,
    samples: dict[str, Sample],
    seed: int,
) -> Request:
    manifest = job.manifest
    reference = samples[manifest["reference_clip"]]
    speech = test.read(job.row, "speech").astype(np.float32)
    if manifest["mode"] == "P":
        prior = model.class_prior(manifest["emotion"], manifest["level"])
    elif manifest["mode"] == "A":
        prior = prior_of_speech(model, speech[: TOKENS_PER_TICK * manifest["num_frames"]])
    else:
        row = train.table.index[train.table["clip_id"] == manifest["reference_video"]][0]
        features = (torch.from_numpy(train.read(row, name)).float() for name in ("speech", "expression"))
        prior = model.embed(*features)
    return Request(
        portrait=Portrait(reference.frames()[REFERENCE_FRAME], tuple(reference.meta["mask_box"])),
        speech=speech,
        prior=prior,
        num_frames=manifest["num_frames"] // model.frame_stride,
        seed=zlib.crc32(f"{seed}:{manifest['clip_id']}".encode()),
    )
