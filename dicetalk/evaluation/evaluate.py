"""Entry points of evaluation: the videos of the `generate` stage, or any two folders of videos."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from dicetalk.config import Evaluate
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.clips import read_clip, samples_of
from dicetalk.evaluation.session import Evaluation, Session


def evaluate_generated(generated: Path, processed: Path, evaluators: Path, settings: Evaluate) -> Evaluation:
    """Evaluate the videos of the `generate` stage.

    Args:
        generated: folder with `manifest.parquet` and the videos.
        processed: `data/processed/<set>` with the real clips.
        evaluators: folder of the metric networks.
        settings: the `evaluate` section.

    Raises:
        DicetalkError: when an input is missing or not one clip can be compared.
    """
    manifest = _read_manifest(generated)
    kept_frames: dict[str, set[int]] = {}
    for row in manifest.itertuples():
        kept_frames.setdefault(row.clip_id, set())
        kept_frames.setdefault(row.reference_clip, set()).add(row.reference_frame)
    session = Session(evaluators, settings)
    samples = samples_of(processed, session.protocol.definition.split, kept_frames.keys())
    real = session.measure("real", samples, kept_frames)
    videos = {}
    for system, rows in manifest.groupby("system"):
        loaders = {}
        for row in rows.itertuples():
            if lost := {row.clip_id, row.reference_clip} - real.keys():
                session.fail(
                    str(system), row.clip_id, f"real clip {', '.join(sorted(lost))} was not measured"
                )
                continue
            labels = (row.clip_id, row.identity, row.emotion, row.level)
            loaders[row.clip_id] = partial(read_clip, generated / row.video_path, *labels)
        videos[system] = session.measure(system, loaders)
    references = session.references(
        {row.clip_id: (row.reference_clip, row.reference_frame) for row in manifest.itertuples()}, real
    )
    return session.conclude(videos, real, references)


def evaluate_folders(generated: Path, real: Path, evaluators: Path, settings: Evaluate) -> Evaluation:
    """Evaluate videos of face crops in one folder against videos of the same names in another.

    There are no labels, so emotion metrics are skipped; the reference image is the first real frame.

    Raises:
        DicetalkError: when no video has a counterpart, or not one can be compared.
    """
    session = Session(evaluators, settings)
    generated_paths, real_paths = _videos(generated), _videos(real)
    for name in sorted(generated_paths.keys() ^ real_paths.keys()):
        system, path = (
            ("ours", generated_paths[name]) if name in generated_paths else ("real", real_paths[name])
        )
        session.fail(system, name, f"{path} has no counterpart of the same name")
    names = sorted(generated_paths.keys() & real_paths.keys())
    if not names:
        raise DicetalkError(f"No .mp4 in {generated} has the name of one in {real}.")
    real_loaders = {name: partial(read_clip, real_paths[name]) for name in names}
    real_clips = session.measure("real", real_loaders, dict.fromkeys(names, (0,)))
    loaders = {name: partial(read_clip, generated_paths[name]) for name in real_clips}
    references = session.references({name: (name, 0) for name in real_clips}, real_clips)
    return session.conclude({"ours": session.measure("ours", loaders)}, real_clips, references)


def _videos(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.mp4"))}


def _read_manifest(generated: Path) -> pd.DataFrame:
    path = generated / "manifest.parquet"
    if not path.is_file():
        raise DicetalkError(f"{path} does not exist; run `dvc repro generate`.")
    return pd.read_parquet(path)
