"""All clips of an index through `preprocess_clip`, in parallel and resumable; the kept ones become shards.

Content of `data/processed/<set>/`:

- `shard-000000.tar`, ...: see `dicetalk.data.shards`
- `kept.parquet`: the meta data of every kept clip and the shard that holds it
- `rejected.csv`: clip_id, reason, detail
- `summary.json`: how many of which; kept + rejected = indexed
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from dicetalk import weights
from dicetalk.config import Preprocess, PreprocessCompute
from dicetalk.data import fan, scheduler, shards, worker
from dicetalk.data.disk import report_need
from dicetalk.data.earlier import REJECTED, Earlier
from dicetalk.data.folder import index_folder
from dicetalk.data.index_table import read_index
from dicetalk.data.results import Results, log_summary
from dicetalk.errors import DicetalkError
from dicetalk.files import explaining_full_disk, sha256_file
from dicetalk.progress import log
from dicetalk.runs.code import code_digests, modules_used
from dicetalk.runs.work import CODE_CHANGES, Resume

OF_THE_SET = {"clips_per_shard"}  # parameters that say nothing about a single clip


def preprocess_index(
    index: Path, output: Path, settings: Preprocess, compute: PreprocessCompute, resume: Resume = "stop"
) -> dict[str, Any]:
    """Preprocess the clips of an index file; resumes from `runs/preprocess-<set>/` after an interruption.

    The output may be deleted before the next run, as DVC does: hard links to its files stay in
    `runs/preprocess-<set>-earlier/`.

    Returns:
        See `run_preprocess`.
    """
    table, raw_root = read_index(index)
    run_dir = Path("runs") / f"preprocess-{index.stem}"
    earlier = run_dir.with_name(f"{run_dir.name}-earlier")
    return run_preprocess(table, raw_root, output, settings, compute, run_dir, earlier, resume)


def preprocess_folder(
    folder: Path, output: Path, settings: Preprocess, compute: PreprocessCompute, resume: Resume = "stop"
) -> dict[str, Any]:
    """Preprocess every video below a folder of the user's own; see `dicetalk.data.folder` for labels."""
    run_dir = Path(output).absolute().with_name(f".{Path(output).name}-run")
    table = index_folder(folder)
    return run_preprocess(table, folder, output, settings, compute, run_dir, resume=resume)


def run_preprocess(
    table: pd.DataFrame,
    raw_root: Path,
    output: Path,
    settings: Preprocess,
    compute: PreprocessCompute,
    run_dir: Path,
    earlier: Path | None = None,
    resume: Resume = "stop",
) -> dict[str, Any]:
    """Preprocess the rows of an index table.

    Args:
        table: one row per clip, see `dicetalk.data.index`.
        raw_root: folder the table's paths are relative to; only read.
        output: the processed folder; replaced as a whole when everything is done.
        settings: section `preprocess` of the parameters.
        compute: where clips are worked on, `compute.preprocess`.
        run_dir: where the results of finished clips wait, under a hash of all they depend on. A killed run
            that is started again does not redo them. Removed at the end, but for a list of the hashes.
        earlier: folder for hard links to the output, from which the next run takes the clips that would come
            out the same; when missing, it takes them from the output itself.
        resume: what to do with the clips of a killed run whose code has changed, `compute.resume`.

    Returns:
        What is written to `summary.json`: `indexed`, `kept`, `rejected`, `kept_seconds`, `reasons`; and what
        says nothing about the output and so is no part of it: `recovered`, how many clips crashed in this run
        and were done at a second try; `newly_crashed`, see `stop_after_crashes`;
        `resumed_across_code_changes`, the modules, if clips are from before and after a change of code.

    Raises:
        DicetalkError: when two clips share an id, none is kept, the disk is full, another process is at work
            on the same output, or the code of a killed run has changed and `resume` is `stop`.
    """
    output, run_dir, raw_root = Path(output), Path(run_dir).absolute(), Path(raw_root)
    rows = sorted(_plain_rows(table), key=lambda row: row["clip_id"])
    _check_ids([row["clip_id"] for row in rows])
    names = ["blazeface-short-range", "facemesh"]
    names += [fan.WEIGHTS] if settings.landmarks == "face_alignment" else []
    networks = [sha256_file(path) for path in weights.fetch(names).values()]
    common = [settings.model_dump(exclude=OF_THE_SET), networks]
    keys = {row["clip_id"]: _key(row, raw_root, common) for row in rows}
    with _alone(run_dir), explaining_full_disk():
        code = _code()
        before = Earlier(earlier or output, run_dir.with_name(f"{run_dir.name}-ledger.json"), code)
        results = Results(run_dir, output, before, keys, settings.clips_per_shard, code, resume)
        summary, recovered = results.finished_summary(), 0
        if summary is None:
            recovered = _process(rows, results, raw_root, settings, compute, output.name)
            summary = results.pack()
        results.clear()
    summary |= {"recovered": recovered, "newly_crashed": results.newly_crashed}
    summary |= {CODE_CHANGES: results.code_changes} if results.code_changes else {}
    log_summary(output, summary)
    if not summary["kept"]:
        raise DicetalkError(f"No clip of {raw_root} could be used; {output / REJECTED} says why.")
    return summary


def stop_after_crashes(summary: dict[str, Any]) -> None:
    """Raise, after all is written, when clips crashed twice that had not in the run before.

    So nobody overlooks it: it may be the machine. The same command again accepts what crashes again.

    Args:
        summary: what `run_preprocess` returned.

    Raises:
        DicetalkError: with what to do.
    """
    if count := summary["newly_crashed"]:
        raise DicetalkError(
            f"{count} of {summary['indexed']} clips crashed, also alone. If that is too many, look for what "
            "is wrong with the machine, such as too little memory. Then run the same command again: it works "
            "on these clips only, and does without those that crash once more."
        )


def _process(
    rows: list[dict[str, Any]],
    results: Results,
    raw_root: Path,
    settings: Preprocess,
    compute: PreprocessCompute,
    name: str,
) -> int:
    """Work on the clips that have no result yet; return how many crashed and were done at the second try."""
    todo = [row for row in rows if not results.has(row["clip_id"])]
    if len(todo) < len(rows):
        log(f"preprocess {name}: {len(rows) - len(todo)} of {len(rows)} clips are already done")
    if not todo:
        return 0
    report_need(todo, raw_root, settings, results.run_dir)
    work = partial(
        worker.finish_clip,
        raw_root=raw_root.absolute(),
        shown_root=raw_root,
        settings=settings,
        timeout_seconds=compute.clip_timeout_seconds,
    )
    jobs = [(row, results.path(row["clip_id"])) for row in todo]

    def give_up(job: tuple[dict[str, Any], Path], how: str) -> None:
        log(f"{job[0]['clip_id']}: {how}")
        results.give_up(job[0]["clip_id"], how)

    if compute.scheduler == "local":
        return scheduler.run_local(work, jobs, compute.workers, f"preprocess {name}", give_up)
    return scheduler.run_dask(work, jobs, compute.scheduler, f"preprocess {name}", give_up)


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Keep other processes from working on the same output; a killed one keeps nobody."""
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_dir.with_name(f"{run_dir.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DicetalkError(f"Another process is preprocessing into {run_dir}; wait for it.") from None
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain Python values, missing ones as None."""
    columns = {name: table[name].astype(object).where(table[name].notna(), None).tolist() for name in table}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _check_ids(clip_ids: list[str]) -> None:
    for clip_id in clip_ids:
        shards.check_clip_id(clip_id)
    if repeated := [clip_id for clip_id, count in Counter(clip_ids).items() if count > 1]:
        raise DicetalkError(f"Clip ids must be unique; repeated: {', '.join(repeated[:5])}.")


def _code() -> dict[str, str]:
    """Return digests of the modules a clip's result depends on, by path in the package."""
    file = Path(worker.__file__).resolve()
    package = file.parents[1]
    digests = code_digests([file, *modules_used(file)])
    return {Path(path).relative_to(package).as_posix(): digest for path, digest in digests.items()}


def _key(row: dict[str, Any], raw_root: Path, common: list) -> str:
    """Return a name made from all the clip's result depends on; media count by size and time of change."""
    stamps = []
    for path in (row["video_path"], row["audio_path"]):
        file = raw_root / path if path is not None else None
        stat = file.stat() if file is not None and file.is_file() else None
        stamps.append([stat.st_size, stat.st_mtime_ns] if stat else None)
    content = json.dumps([row, stamps, common], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]
