"""What the run before left: clips that would come out the same are taken from there.

A ledger remembers the hash of everything each clip depended on. It is no part of the processed folder, whose
bytes depend on nothing but content: the hashes hold times of files.
"""

from __future__ import annotations

import csv
import glob
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dicetalk.files import replace_directory, sha256_file
from dicetalk.progress import log
from dicetalk.runs.checked import read_checked, write_checked

REJECTED = "rejected.csv"


class Earlier:
    """The processed folder of the run before.

    Args:
        folder: that folder, or hard links to its files. It counts only if it is exactly what the run left.
        ledger: JSON file that says what the run left.
        code: digests of the modules that make a clip; what other code made does not count.

    Attributes:
        keys: hash of everything a clip depended on, by clip id; empty if the folder does not count.
        clips_per_shard: of the folder.
        rejected: reason and detail of its rejected clips.
        crashed: hashes of the clips that crashed, also if the folder does not count.
        code_changes: modules that changed, by consent, while it was made.
    """

    def __init__(self, folder: Path, ledger: Path, code: dict[str, str]):
        self.folder, self._ledger, self._code = folder, ledger, code
        shutil.rmtree(half_done(folder), ignore_errors=True)
        for leftover in ledger.parent.glob(f".{glob.escape(ledger.stem[:40])}-????????.json"):
            leftover.unlink()
        known: dict[str, Any] = read_checked(ledger) or {}
        self._files: dict[str, str] = known.get("files", {})
        counts = known.get("code") == code and _holds(folder, self._files)
        self.keys: dict[str, str] = known["keys"] if counts else {}
        self.clips_per_shard: int = known["clips_per_shard"] if counts else 0
        self.rejected = _read_rejected(folder) if counts else {}
        self.crashed = set(known.get("crashed", ()))
        self.code_changes: list[str] = known.get("code_changes", []) if counts else []

    def unchanged(self, keys: Mapping[str, str]) -> set[str]:
        """Return the ids of the clips that would come out the same; one that crashed might not."""
        return {clip_id for clip_id, key in keys.items() if self.keys.get(clip_id) == key} - {
            clip_id for clip_id, why in self.rejected.items() if why["reason"] == "crashed"
        }

    def is_at(self, output: Path) -> bool:
        """Return whether the processed folder itself is there as the run left it."""
        return bool(self.keys) and (output == self.folder or _holds(output, self._files))

    def remember(
        self,
        output: Path,
        keys: dict[str, str],
        clips_per_shard: int,
        crashed: list[str],
        code_changes: list[str],
    ) -> None:
        """Let the next run take clips from `output`, of which `crashed` are the hashes of those that did."""
        if output != self.folder:
            self._link(output)
        ledger = {
            "clips_per_shard": clips_per_shard,
            "keys": keys,
            "crashed": crashed,
            "code": self._code,
            "code_changes": code_changes,
            "files": _hashes(output),
        }
        write_checked(self._ledger, ledger)

    def _link(self, output: Path) -> None:
        try:
            with beside(self.folder) as links:
                for file in output.iterdir():
                    os.link(file, links / file.name)
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            log(
                f"{self.folder} cannot hold hard links to {output} ({error.strerror}): after a change, all "
                "clips will be worked on again."
            )


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `path` when the block ends well."""
    temporary = half_done(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        replace_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def half_done(path: Path) -> Path:
    """Return where `beside` works; one place, so that the next run finds what a killed one left."""
    return path.with_name(f".{path.name}-being-written")


def _holds(folder: Path, files: dict[str, str]) -> bool:
    return bool(files) and folder.is_dir() and _hashes(folder) == files


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}


def _read_rejected(folder: Path) -> dict[str, dict[str, str]]:
    """Return the rejected clips of a processed folder."""
    with open(folder / REJECTED, newline="", encoding="utf-8") as stream:
        return {row.pop("clip_id"): row for row in csv.DictReader(stream)}
