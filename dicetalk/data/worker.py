"""What a preprocessing process runs; apart from the rest so that its start imports no tables."""

from __future__ import annotations

import faulthandler
from pathlib import Path
from typing import Any

import cv2

from dicetalk.config import Preprocess
from dicetalk.data import clip
from dicetalk.data.shards import Sample, write_shard
from dicetalk.files import explaining_full_disk, noted_path, write_json

STDERR_FILE = 2  # `sys.stderr` may be something without a file


def finish_clip(
    job: tuple[dict[str, Any], Path],
    raw_root: Path,
    shown_root: Path,
    settings: Preprocess,
    timeout_seconds: float,
) -> None:
    """Preprocess one clip and store its result: a tar with the sample, or a JSON file with the reason.

    A clip that takes longer than `timeout_seconds` ends the process: decoders that hang answer to
    nothing less.

    Args:
        job: index row, and absolute path of the result without suffix; temporary files go beside it.
        raw_root: absolute folder the row's paths are relative to.
        shown_root: how that folder is called in details of rejections.
        settings: section `preprocess` of the parameters.
        timeout_seconds: how long the clip may take.
    """
    row, result = job
    cv2.setNumThreads(1)  # one process per core is faster than many threads in each
    faulthandler.dump_traceback_later(timeout_seconds, exit=True, file=STDERR_FILE)
    try:
        with explaining_full_disk():
            _finish(row, result, raw_root, shown_root, settings)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _finish(
    row: dict[str, Any], result: Path, raw_root: Path, shown_root: Path, settings: Preprocess
) -> None:
    outcome = clip.preprocess_clip(row, raw_root, settings, scratch=result.parent)
    if isinstance(outcome, Sample):
        with noted_path(result.with_suffix(".tar")) as temporary:
            write_shard(temporary, iter([outcome]))
    else:
        detail = outcome.detail.replace(str(raw_root), str(shown_root))
        write_json(result.with_suffix(".json"), {"reason": outcome.code, "detail": detail})
