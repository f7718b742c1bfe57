"""Results of single clips, from the moment each is finished to the shards that hold them all.

While a run lasts, each finished clip is one file of `run_dir`, named by a hash of everything the clip depends
on: `<hash>.tar` when it is kept, `<hash>.json` when it is rejected, `<hash>.crashed.json` when its process
died twice; the last is tried again by the next run. Clips without such a file are taken from the run before.
"""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from dicetalk.data.earlier import REJECTED, Earlier, beside, half_done
from dicetalk.data.reasons import REASONS
from dicetalk.data.shards import Sample, read_samples, shard_name, write_shard
from dicetalk.errors import DicetalkError
from dicetalk.files import is_as_noted, read_json, write_json
from dicetalk.progress import log
from dicetalk.runs.checked import read_checked, write_checked
from dicetalk.runs.edits import changed_keys
from dicetalk.runs.work import CODE_CHANGES, MADE_OF, Resume, may_go_on

SUMMARY = "summary.json"


class Results:
    """The results of one run.

    Args:
        run_dir: folder of finished clips; leftovers of a killed run are removed from it.
        output: the processed folder to write.
        earlier: what the run before left.
        keys: hash of everything a clip depends on, by clip id, in the order of the ids.
        clips_per_shard: of the processed folder.
        code: digests of the modules that make a clip.
        resume: what to do with clips that a killed run made with other code, `compute.resume`.

    Attributes:
        newly_crashed: number of clips that crashed, and had not in the run before.
        code_changes: modules that changed, by consent, between some clips and others.
    """

    def __init__(
        self,
        run_dir: Path,
        output: Path,
        earlier: Earlier,
        keys: dict[str, str],
        clips_per_shard: int,
        code: dict[str, str],
        resume: Resume,
    ):
        self.run_dir, self.output, self.earlier = run_dir, output, earlier
        self.keys, self.clips_per_shard = keys, clips_per_shard
        self.code_changes = _check_code(run_dir, code, resume)
        for leftover in [*run_dir.glob(".*"), *run_dir.glob("tmp*"), *run_dir.glob("*.crashed.json")]:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        shutil.rmtree(half_done(output), ignore_errors=True)
        self.newly_crashed = 0
        self._same = earlier.unchanged(keys)
        if self._same:
            self.code_changes = sorted({*self.code_changes, *earlier.code_changes})

    def path(self, clip_id: str) -> Path:
        """Return where the result of a clip is to be written, without suffix."""
        return self.run_dir / self.keys[clip_id]

    def has(self, clip_id: str) -> bool:
        """Return whether a clip needs no work any more."""
        path = self.path(clip_id)
        done = is_as_noted(path.with_suffix(".tar")) or path.with_suffix(".json").is_file()
        return done or clip_id in self._same

    def give_up(self, clip_id: str, detail: str) -> None:
        """Note that a clip crashed, again when it was alone."""
        content = {"reason": "crashed", "detail": detail}
        write_json(self.path(clip_id).with_suffix(".crashed.json"), content)

    def finished_summary(self) -> dict[str, Any] | None:
        """Return the summary of the processed folder if there is nothing to add to it or to change."""
        is_same = self._same == set(self.keys) and self.earlier.keys == self.keys
        is_same = is_same and self.earlier.clips_per_shard == self.clips_per_shard
        return read_json(self.output / SUMMARY) if is_same and self.earlier.is_at(self.output) else None

    def pack(self) -> dict[str, Any]:
        """Write shards, tables and summary of all clips, in the order of their ids; return the summary."""
        rejected = {clip_id: why for clip_id in self.keys if (why := self._rejection(clip_id)) is not None}
        kept = [clip_id for clip_id in self.keys if clip_id not in rejected]
        with beside(self.output) as folder:
            summary = self._write(folder, kept, rejected)
        crashed = [self.keys[clip_id] for clip_id, why in rejected.items() if why["reason"] == "crashed"]
        self.newly_crashed = len(set(crashed) - self.earlier.crashed)
        self.earlier.remember(self.output, self.keys, self.clips_per_shard, crashed, self.code_changes)
        return summary

    def clear(self) -> None:
        """Remove the results of single clips, also those of other settings, which nothing will ask for."""
        shutil.rmtree(self.run_dir)

    def _rejection(self, clip_id: str) -> dict[str, str] | None:
        """Return reason and detail of a rejected clip, None for a kept one."""
        path = self.path(clip_id)
        if path.with_suffix(".tar").is_file():
            return None
        for suffix in (".json", ".crashed.json"):
            if path.with_suffix(suffix).is_file():
                return read_json(path.with_suffix(suffix))
        return self.earlier.rejected.get(clip_id)

    def _samples(self, clip_ids: list[str]) -> Iterator[Sample]:
        """Yield kept clips from their own files, the others from the earlier shards: both are in order."""
        taken_over: Iterator[Sample] = iter(())
        if any(not self.path(clip_id).with_suffix(".tar").is_file() for clip_id in clip_ids):
            taken_over = read_samples(self.earlier.folder)
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


def _check_code(run_dir: Path, code: dict[str, str], resume: Resume) -> list[str]:
    """Prepare the folder of finished clips, and return the modules that changed since the first of them.

    Raises:
        DicetalkError: when the code changed and `resume` is `stop`, or the note about it is damaged.
    """
    note = run_dir / MADE_OF
    known: Any = read_checked(note) if note.exists() else {"code": code, CODE_CHANGES: []}
    if known is None:
        raise DicetalkError(f"{note} is damaged; remove {run_dir} to work on its clips again.")
    changes: list[str] = known[CODE_CHANGES]
    if modules := changed_keys(known["code"], code):
        if may_go_on(f"preprocess {run_dir.name}", run_dir, modules, resume):
            changes = sorted({*changes, *modules})
        else:
            shutil.rmtree(run_dir)
            changes = []
    run_dir.mkdir(parents=True, exist_ok=True)
    write_checked(note, {"code": code, CODE_CHANGES: changes})
    return changes


def log_summary(output: Path, summary: dict[str, Any]) -> None:
    """Print how many clips were kept, and why the others were not."""
    log(
        f"{output}: {summary['indexed']} indexed = {summary['kept']} kept ({summary['kept_seconds']:.0f} s) "
        f"+ {summary['rejected']} rejected"
    )
    for reason, count in sorted(summary["reasons"].items(), key=lambda item: (-item[1], item[0])):
        log(f"  {count:6d}  {reason:18s} {REASONS[reason]}")
    if summary["recovered"]:
        log(f"{summary['recovered']} clips crashed and were done at the second try, alone.")
    if crashed := summary["reasons"].get("crashed"):
        log(f"WARNING: {crashed} clips are left out because they crash; {output / REJECTED} says how.")
