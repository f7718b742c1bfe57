"""Progress of long work: a live bar on a terminal, status lines with ETA elsewhere (logs, CI, Prefect)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

STATUS_SECONDS = 5.0


def format_seconds(seconds: float) -> str:
    """Return `seconds` as `1h02m`, `3m05s` or `12s`."""
    seconds = int(round(seconds))
    if seconds >= 3600:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    return f"{seconds // 60}m{seconds % 60:02d}s" if seconds >= 60 else f"{seconds}s"


def track(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Yield from `items` while showing how far along the work is.

    Args:
        items: what to iterate over; its length is used when `total` is missing.
        label: what is being done, e.g. `preprocess mead`.
        total: number of items, for iterables without a length.
    """
    if total is None:
        total = len(items)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=label, total=total, leave=False)
        return
    started = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= STATUS_SECONDS and done:
            last = now
            eta = (now - started) / done * (total - done)
            log(
                f"{label}: {done}/{total}, elapsed {format_seconds(now - started)}, ETA {format_seconds(eta)}"
            )
        yield item
    log(f"{label}: {total}/{total} in {format_seconds(time.monotonic() - started)}")


def log(message: str) -> None:
    """Print one status line to stderr at once, so that logs of piped processes are live."""
    print(message, file=sys.stderr, flush=True)
