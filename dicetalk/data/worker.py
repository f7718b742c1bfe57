"""What a preprocessing process runs; apart from the rest so that its start imports no tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2

from dicetalk.config import Preprocess
from dicetalk.data import clip
from dicetalk.data.shards import Sample, write_shard
from dicetalk.files import atomic_path, write_json


def prepare() -> None:
    """Set up a process: one per core is faster than many threads in each."""
    cv2.setNumThreads(1)


def finish_clip(job: tuple[dict[str, Any], Path], raw_root: Path, settings: Preprocess) -> None:
    """Preprocess one clip and store its result: a tar with the sample, or a JSON file with the reason."""
    row, result = job
    outcome = clip.preprocess_clip(row, raw_root, settings)
    if isinstance(outcome, Sample):
        with atomic_path(result.with_suffix(".tar")) as temporary:
            write_shard(temporary, iter([outcome]))
    else:
        write_json(result.with_suffix(".json"), {"reason": outcome.code, "detail": outcome.detail})
