"""All clips of an index through `preprocess_clip`, in parallel and resumable; the kept ones become shards.

Content of `data/processed/<set>/`:

- `shard-000000.tar`, ...: see `dicetalk.data.shards`
- `kept.parquet`: the meta data of every kept clip and the shard that holds it
- `rejected.csv`: clip_id, reason, detail
- `summary.json`: how many of which; kept + rejected = indexed
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from dicetalk import weights
from dicetalk.config import Preprocess
from dicetalk.data import clip, detect, faces, geometry, landmarks, media, mp4, worker
from dicetalk.data.folder import index_folder
from dicetalk.data.index import read_index
from dicetalk.data.shards import Sample, check_clip_id, read_samples, shard_name, write_shard
from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_directory, read_json, sha256_file, write_json
from dicetalk.progress import log, track

CODE = (clip, detect, faces, geometry, landmarks, media, mp4)


def preprocess_index(index: Path, output: Path, settings: Preprocess) -> dict[str, Any]:
    """Preprocess the clips of an index file; resumes from `runs/preprocess-<set>/` after an interruption.

    Returns:
        The summary that is also written to `summary.json`.
    """
    table, raw_root = read_index(index)
    return run_preprocess(table, raw_root, output, settings, Path("runs") / f"preprocess-{index.stem}")


def preprocess_folder(folder: Path, output: Path, settings: Preprocess) -> dict[str, Any]:
    """Preprocess every video below a folder of the user's own; see `dicetalk.data.folder` for labels."""
    run_dir = Path(output).parent / f".{Path(output).name}-unfinished"
    return run_preprocess(index_folder(folder), folder, output, settings, run_dir)


def run_preprocess(
    table: pd.DataFrame, raw_root: Path, output: Path, settings: Preprocess, run_dir: Path
) -> dict[str, Any]:
    """Preprocess the rows of an index table.

    Args:
        table: one row per clip, see `dicetalk.data.index`.
        raw_root: folder the table's paths are relative to; only read.
        output: the processed folder; replaced as a whole when everything is done.
        settings: section `preprocess` of the parameters.
        run_dir: where the results of finished clips wait, under a hash of all they depend on. A killed run
            that is started again does not redo them. Removed at the end.

    Returns:
        Counts: `indexed`, `kept`, `rejected`, `kept_seconds`, `reasons`.

    Raises:
        DicetalkError: when two clips share an id or none is kept.
    """
    output, run_dir, raw_root = Path(output), Path(run_dir), Path(raw_root)
    rows = sorted(_plain_rows(table), key=lambda row: row["clip_id"])
    _check_ids([row["clip_id"] for row in rows])
    networks = [sha256_file(path) for path in weights.fetch(["blazeface-short-range", "facemesh"]).values()]
    common = [settings.model_dump(exclude={"workers", "clips_per_shard"}), networks, _code_digest()]
    results = {row["clip_id"]: run_dir / _key(row, raw_root, common) for row in rows}
    run_dir.mkdir(parents=True, exist_ok=True)
    todo = [row for row in rows if not _is_done(results[row["clip_id"]])]
    if len(todo) < len(rows):
        log(f"preprocess {output.name}: {len(rows) - len(todo)} of {len(rows)} clips are already done")
    jobs = [(row, results[row["clip_id"]]) for row in todo]
    work = partial(worker.finish_clip, raw_root=raw_root, settings=settings)
    _work_through(jobs, work, settings.workers, output.name)
    summary = _pack(rows, results, output, settings.clips_per_shard)
    for path in results.values():
        path.with_suffix(".tar").unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
    if not any(run_dir.iterdir()):
        run_dir.rmdir()
    _log_summary(output, summary)
    if not summary["kept"]:
        raise DicetalkError(f"No clip of {raw_root} could be used; {output / 'rejected.csv'} says why.")
    return summary


def _plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain Python values, missing ones as None."""
    columns = {name: table[name].astype(object).where(table[name].notna(), None).tolist() for name in table}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _check_ids(clip_ids: list[str]) -> None:
    for clip_id in clip_ids:
        check_clip_id(clip_id)
    if repeated := [clip_id for clip_id, count in Counter(clip_ids).items() if count > 1]:
        raise DicetalkError(f"Clip ids must be unique; repeated: {', '.join(repeated[:5])}.")


def _code_digest() -> str:
    """Return a hash of the modules a clip's result depends on; a changed program trusts no old result."""
    digests = "".join(sha256_file(Path(str(module.__file__))) for module in CODE)
    return hashlib.sha256(digests.encode()).hexdigest()


def _key(row: dict[str, Any], raw_root: Path, common: list) -> str:
    """Return a name made from all the clip's result depends on; media count by size and time of change."""
    stamps = []
    for path in (row["video_path"], row["audio_path"]):
        file = raw_root / path if path is not None else None
        stat = file.stat() if file is not None and file.is_file() else None
        stamps.append([stat.st_size, stat.st_mtime_ns] if stat else None)
    content = json.dumps([row, stamps, common], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _is_done(result: Path) -> bool:
    return result.with_suffix(".tar").is_file() or result.with_suffix(".json").is_file()


def _work_through(jobs: list, work: partial, workers: int, name: str) -> None:
    label = f"preprocess {name}"
    if min(workers, len(jobs)) <= 1:
        worker.prepare()
        for job in track(jobs, label):
            work(job)
        return
    # Spawned, not forked: the parent may hold threads of numeric libraries.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=worker.prepare) as pool:
        for _ in track(pool.map(work, jobs), label, total=len(jobs)):
            pass


def _pack(rows: list[dict], results: dict[str, Path], output: Path, clips_per_shard: int) -> dict[str, Any]:
    """Write shards, tables and summary of all finished clips, in the order of their ids."""
    tars = {name: path.with_suffix(".tar") for name, path in results.items()}
    kept = [row["clip_id"] for row in rows if tars[row["clip_id"]].is_file()]
    unused = [row["clip_id"] for row in rows if not tars[row["clip_id"]].is_file()]
    rejected = [{"clip_id": name, **read_json(results[name].with_suffix(".json"))} for name in unused]
    metas = []

    def samples(clip_ids: list[str], shard: str) -> Iterator[Sample]:
        for clip_id in clip_ids:
            sample = next(read_samples(tars[clip_id]))
            metas.append({**sample.meta, "shard": shard})
            yield sample

    with atomic_directory(output) as folder:
        for number, begin in enumerate(range(0, len(kept), clips_per_shard)):
            name = shard_name(number)
            write_shard(folder / name, samples(kept[begin : begin + clips_per_shard], name))
        if metas:
            pd.DataFrame(metas).to_parquet(folder / "kept.parquet", index=False)
        with open(folder / "rejected.csv", "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["clip_id", "reason", "detail"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rejected)
        summary = {
            "indexed": len(rows),
            "kept": len(kept),
            "rejected": len(rejected),
            "kept_seconds": round(sum(meta["num_frames"] / meta["fps"] for meta in metas), 2),
            "reasons": dict(sorted(Counter(entry["reason"] for entry in rejected).items())),
        }
        write_json(folder / "summary.json", summary)
    return summary


def _log_summary(output: Path, summary: dict[str, Any]) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items())
    log(
        f"{output}: {summary['indexed']} indexed = {summary['kept']} kept ({summary['kept_seconds']:.0f} s) "
        f"+ {summary['rejected']} rejected" + (f": {reasons}" if reasons else "")
    )
