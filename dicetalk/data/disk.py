"""How much disk a preprocessing run will need, said before it starts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from dicetalk.config import Preprocess
from dicetalk.data.media import probe
from dicetalk.errors import DicetalkError
from dicetalk.progress import log

# Of the crops of real clips, see docs/performance-log.md: near-lossless H.264 in full colour resolution.
BYTES_PER_PIXEL = 0.25
LANDMARK_BYTES = 68 * 2 * 4
SAMPLE_BYTES = 2
NUM_PROBED = 20  # clips whose length stands for those of unknown length
COPIES = 2  # every clip lies in its own file until the shards are written


def report_need(rows: list[dict[str, Any]], raw_root: Path, settings: Preprocess, run_dir: Path) -> int:
    """Log how much disk the clips will take at most, and whether there is as much.

    Args:
        rows: index rows of the clips to come.
        raw_root: folder the rows' paths are relative to.
        settings: section `preprocess` of the parameters.
        run_dir: an existing folder on the disk that counts.

    Returns:
        The estimate in bytes. It is a warning, not a limit: a run that fills the disk stops and continues.
    """
    per_frame = settings.size_px**2 * BYTES_PER_PIXEL + LANDMARK_BYTES
    per_second = per_frame * settings.fps + settings.sample_rate_hz * SAMPLE_BYTES
    need = round(COPIES * per_second * _total_seconds(rows, raw_root, settings.max_seconds))
    free = shutil.disk_usage(run_dir).free
    message = f"{len(rows)} clips need about {need / 2**30:.1f} GiB of disk; {free / 2**30:.1f} GiB are free"
    log(message if need <= free else f"WARNING: {message}. The run will stop when the disk is full.")
    return need


def _total_seconds(rows: list[dict[str, Any]], raw_root: Path, max_seconds: float) -> float:
    known = [row["end_seconds"] - row["start_seconds"] for row in rows if row["end_seconds"] is not None]
    unknown = [row for row in rows if row["end_seconds"] is None]
    lengths: list[float] = []
    for row in unknown[:: len(unknown) // NUM_PROBED + 1]:
        try:
            lengths.append(min(probe(raw_root / row["video_path"]).duration_seconds, max_seconds))
        except DicetalkError:  # it will be rejected
            lengths.append(0.0)
    return sum(min(length, max_seconds) for length in known) + float(np.mean(lengths or [0])) * len(unknown)
