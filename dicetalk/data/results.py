"""Results of single clips, from the moment each is finished to the shards that hold them all.

While a run lasts, each finished clip is one file of `run_dir`, named by a hash of everything the clip depends
on: `<hash>.tar` when it is kept, `<hash>.json` when it is rejected, `<hash>.crashed.json` when its process
died; the last is tried again by the next run. A ledger beside it remembers the hashes of the clips in the
processed folder, so that clips that did not change are copied from there. It is no part of that folder, whose
bytes depend on nothing but content; the hashes hold times of files.
"""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from dicetalk.data.reasons import REASONS
from dicetalk.data.shards import Sample, read_samples, shard_name, write_shard
from dicetalk.files import read_json, replace_directory, sha256_file, write_json
from dicetalk.progress import log

SUMMARY, REJECTED = "summary.json", "rejected.csv"


class Results:
    """The results of one run.

    Args:
        run_dir: folder of finished clips; leftovers of a killed run are removed from it.
        earlier: the processed folder of the run before, if there is one.
        keys: hash of everything a clip depends on, by clip id, in the order of the ids.
        clips_per_shard: of the processed folder.
    """

    def __init__(self, run_dir: Path, earlier: Path, keys: dict[str, str], clips_per_shard: int):
        self.run_dir, self.earlier, self.keys, self.clips_per_shard = run_dir, earlier, keys, clips_per_shard
        run_dir.mkdir(parents=True, exist_ok=True)
        for leftover in [*run_dir.glob(".*"), *run_dir.glob("tmp*"), *run_dir.glob("*.crashed.json")]:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        self._packing = earlier.with_name(f".{earlier.name}-packing")
        self._ledger = run_dir.with_name(f"{run_dir.name}-ledger.json")
        self._known = self._read_ledger()
        self._old_rejected = _read_rejected(earlier) if self._known["keys"] else {}
        self._same = {clip_id for clip_id, key in keys.items() if self._known["keys"].get(clip_id) == key}
        self._same -= {name for name, row in self._old_rejected.items() if row["reason"] == "crashed"}

    def path(self, clip_id: str) -> Path:
        """Return where the result of a clip is to be written, without suffix."""
        return self.run_dir / self.keys[clip_id]

    def has(self, clip_id: str) -> bool:
        """Return whether a clip needs no work any more."""
        path = self.path(clip_id)
        done = path.with_suffix(".tar").is_file() or path.with_suffix(".json").is_file()
        return done or clip_id in self._same

    def give_up(self, clip_id: str, detail: str) -> None:
        """Note that the process died over a clip."""
        content = {"reason": "crashed", "detail": detail}
        write_json(self.path(clip_id).with_suffix(".crashed.json"), content)

    def finished_summary(self) -> dict[str, Any] | None:
        """Return the summary of the earlier run if there is nothing to add to it or to change."""
        now = {**self._known, "clips_per_shard": self.clips_per_shard, "keys": self.keys}
        is_same = len(self._same) == len(self.keys) and self._known == now
        return read_json(self.earlier / SUMMARY) if is_same else None

    def pack(self, output: Path) -> dict[str, Any]:
        """Write shards, tables and summary of all clips, in the order of their ids; return the summary."""
        rejected = {clip_id: why for clip_id in self.keys if (why := self._rejection(clip_id)) is not None}
        kept = [clip_id for clip_id in self.keys if clip_id not in rejected]
        shutil.rmtree(self._packing, ignore_errors=True)
        self._packing.mkdir(parents=True)
        try:
            summary = self._write(self._packing, kept, rejected)
            replace_directory(self._packing, output)
        finally:
            shutil.rmtree(self._packing, ignore_errors=True)
        ledger = {"clips_per_shard": self.clips_per_shard, "keys": self.keys, "files": _hashes(output)}
        write_json(self._ledger, ledger)
        return summary

    def clear(self) -> None:
        """Remove the results of single clips, also those of other settings, which nothing will ask for."""
        shutil.rmtree(self.run_dir)

    def _read_ledger(self) -> dict[str, Any]:
        """Return what is known about the earlier folder: nothing, unless it is exactly what a run left."""
        nothing: dict[str, Any] = {"clips_per_shard": 0, "keys": {}, "files": {}}
        if not self._ledger.is_file() or not self.earlier.is_dir():
            return nothing
        ledger = read_json(self._ledger)
        return ledger if ledger["files"] == _hashes(self.earlier) else nothing

    def _rejection(self, clip_id: str) -> dict[str, str] | None:
        """Return reason and detail of a rejected clip, None for a kept one."""
        path = self.path(clip_id)
        if path.with_suffix(".tar").is_file():
            return None
        for suffix in (".json", ".crashed.json"):
            if path.with_suffix(suffix).is_file():
                return read_json(path.with_suffix(suffix))
        return self._old_rejected.get(clip_id)

    def _samples(self, clip_ids: list[str]) -> Iterator[Sample]:
        """Yield kept clips from their own files, the others from the earlier shards: both are in order."""
        taken_over: Iterator[Sample] = iter(())
        if any(not self.path(clip_id).with_suffix(".tar").is_file() for clip_id in clip_ids):
            taken_over = read_samples(self.earlier)
        for clip_id in clip_ids:
            own = self.path(clip_id).with_suffix(".tar")
            if own.is_file():
                yield next(read_samples(own))
            else:
                yield next(sample for sample in taken_over if sample.clip_id == clip_id)

    def _write(self, folder: Path, kept: list[str], rejected: dict[str, dict[str, str]]) -> dict[str, Any]:
        metas = []
        samples = self._samples(kept)

        def some(shard: str) -> Iterator[Sample]:
            for _, sample in zip(range(self.clips_per_shard), samples, strict=False):
                metas.append({**sample.meta, "shard": shard})
                yield sample

        for number in range(-(-len(kept) // self.clips_per_shard)):
            write_shard(folder / shard_name(number), some(shard_name(number)))
        if metas:
            pd.DataFrame(metas).to_parquet(folder / "kept.parquet", index=False)
        with open(folder / REJECTED, "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["clip_id", "reason", "detail"], lineterminator="\n")
            writer.writeheader()
            writer.writerows({"clip_id": clip_id, **why} for clip_id, why in rejected.items())
        summary = {
            "indexed": len(self.keys),
            "kept": len(kept),
            "rejected": len(rejected),
            "kept_seconds": round(sum(meta["num_frames"] / meta["fps"] for meta in metas), 2),
            "reasons": dict(sorted(Counter(why["reason"] for why in rejected.values()).items())),
        }
        write_json(folder / SUMMARY, summary)
        return summary


def log_summary(output: Path, summary: dict[str, Any]) -> None:
    """Print how many clips were kept, and why the others were not."""
    log(
        f"{output}: {summary['indexed']} indexed = {summary['kept']} kept ({summary['kept_seconds']:.0f} s) "
        f"+ {summary['rejected']} rejected"
    )
    for reason, count in sorted(summary["reasons"].items(), key=lambda item: (-item[1], item[0])):
        log(f"  {count:6d}  {reason:18s} {REASONS[reason]}")


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}


def _read_rejected(folder: Path) -> dict[str, dict[str, str]]:
    """Return the rejected clips of a processed folder."""
    with open(folder / REJECTED, newline="", encoding="utf-8") as stream:
        return {row.pop("clip_id"): row for row in csv.DictReader(stream)}
