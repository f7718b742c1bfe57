"""Entry points of evaluation: the videos of the `generate` stage, or any folders of videos."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dicetalk.compute.precision import fixed_threads
from dicetalk.config import Evaluate
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.clips import samples_of, video_source
from dicetalk.evaluation.folders import compare_media, find_videos, read_labels
from dicetalk.evaluation.session import Evaluation, Session
from dicetalk.evaluation.systems import DERIVED


def evaluate_any(
    generated: Sequence[str],
    real: Path,
    evaluators: Path,
    settings: Evaluate,
    threads: int,
    work: Path | None = None,
) -> Evaluation:
    """Evaluate a folder of the `generate` stage, or plain folders of videos, as the command line names them.

    Args:
        generated: folders, each with an optional `NAME=` before; the first is called `ours` without one,
            others after their folder.
        real: a processed data set for the former, a folder of videos for the latter.
        evaluators: folder of the in-domain metric networks.
        settings: the `evaluate` section.
        threads: clips measured at a time.
        work: folder for measured clips; a temporary one when missing.

    Raises:
        DicetalkError: when a folder does not exist or a name is given twice.
    """
    systems: dict[str, Path] = {}
    for given in generated:
        name, _, folder = given.rpartition("=") if not Path(given).is_dir() else ("", "", given)
        path = Path(folder)
        if not path.is_dir():
            raise DicetalkError(f"--generated {given}: {path} is no folder.")
        name = name or (path.resolve().name if systems else "ours")
        if name in systems or name in DERIVED:
            raise DicetalkError(f"--generated {given}: {name} is taken; give it another name, NAME={folder}.")
        systems[name] = path
    with tempfile.TemporaryDirectory() as temporary:
        folder_of_work = Path(temporary) if work is None else work
        (first, *others) = systems.values()
        if not others and (first / "manifest.parquet").is_file():
            return evaluate_generated(first, [real], evaluators, settings, threads, folder_of_work)
        return evaluate_folders(systems, real, evaluators, settings, threads, folder_of_work)


@fixed_threads()
def evaluate_generated(
    generated: Path,
    processed: Sequence[Path],
    evaluators: Path,
    settings: Evaluate,
    threads: int,
    work: Path,
) -> Evaluation:
    """Evaluate the videos of the `generate` stage.

    Args:
        generated: folder with `manifest.parquet` and the videos.
        processed: `data/processed/<set>` folders with the real clips.
        evaluators: folder of the metric networks.
        settings: the `evaluate` section.
        threads: clips measured at a time.
        work: folder for measured clips, from which killed work continues.

    Raises:
        DicetalkError: when an input is missing or not one clip can be compared.
    """
    manifest = _read_manifest(generated)
    kept_frames: dict[str, set[int]] = {}
    for row in manifest.itertuples():
        kept_frames.setdefault(row.clip_id, set())
        kept_frames.setdefault(row.reference_clip, set()).add(row.reference_frame)
    session = Session(evaluators, settings, threads, work)
    samples = samples_of(processed, session.definition.split, kept_frames.keys())
    real = session.measure("real", samples, kept_frames)
    videos = {}
    for system, rows in sorted(manifest.groupby("system"), key=lambda item: item[0] != "ours"):
        sources = {}
        for row in rows.itertuples():
            if lost := {row.clip_id, row.reference_clip} - real.keys():
                session.fail(
                    str(system), row.clip_id, f"real clip {', '.join(sorted(lost))} was not measured"
                )
                continue
            labels = (row.clip_id, row.identity, row.emotion, row.level)
            sources[row.clip_id] = video_source(generated / row.video_path, *labels)
        videos[system] = session.measure(system, sources, real=samples)
    references = session.references(
        {row.clip_id: (row.reference_clip, row.reference_frame) for row in manifest.itertuples()}, real
    )
    return session.conclude(videos, real, references)


@fixed_threads()
def evaluate_folders(
    generated: Mapping[str, Path], real: Path, evaluators: Path, settings: Evaluate, threads: int, work: Path
) -> Evaluation:
    """Evaluate the videos of one or more systems against real ones of the same names.

    Labels come from `clips.csv` in the real folder, or from names in MEAD's style; without, emotion metrics
    are skipped. The reference image is the first real frame.

    Args:
        generated: folder of each system by its name; floors derive from the first.
        real: folder of the real videos.
        evaluators: folder of the in-domain metric networks, where the protocol names any.
        settings: the `evaluate` section.
        threads: clips measured at a time.
        work: folder for measured clips, from which killed work continues.

    Raises:
        DicetalkError: when no video has a counterpart, or not one can be compared.
    """
    session = Session(evaluators, settings, threads, work)
    real_paths = find_videos(real)
    paths = {system: find_videos(folder) for system, folder in generated.items()}
    names = sorted(real_paths.keys() & set().union(*(found.keys() for found in paths.values())))
    if not names:
        folders = ", ".join(map(str, generated.values()))
        raise DicetalkError(f"No video in {folders} has the name of one in {real}.")
    for name in sorted(real_paths.keys() - set(names)):
        session.fail("real", name, f"{real_paths[name]} has no counterpart of the same name")
    labels = read_labels(real, real_paths)
    sources = {name: video_source(real_paths[name], name, *labels[name]) for name in names}
    real_clips = session.measure("real", sources, dict.fromkeys(names, (0,)))
    videos = {}
    for system, found in paths.items():
        for name in sorted(found.keys() - set(names)):
            session.fail(system, name, f"{found[name]} has no counterpart of the same name")
        for name in sorted(found.keys() & set(names) - real_clips.keys()):
            session.fail(system, name, "its real video was not measured")
        own = {
            name: video_source(found[name], name, *labels[name])
            for name in sorted(found.keys() & real_clips.keys())
        }
        videos[system] = session.measure(system, own, real=sources)
    references = session.references({name: (name, 0) for name in real_clips}, real_clips)
    evaluation = session.conclude(videos, real_clips, references)
    evaluation.report["notes"] = compare_media(paths, real_paths, session.definition.fps)
    return evaluation


def _read_manifest(generated: Path) -> pd.DataFrame:
    path = generated / "manifest.parquet"
    if not path.is_file():
        raise DicetalkError(f"{path} does not exist; run `dvc repro generate`.")
    return pd.read_parquet(path)
