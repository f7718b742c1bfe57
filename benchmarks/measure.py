"""Two functions against each other in one process: times in turn, peak memory, equality of results."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table


def peak_memory_bytes(work: Callable[[], torch.Tensor]) -> tuple[int, torch.Tensor]:
    """Largest resident memory during `work` above what was resident before (Linux), and its result."""
    gc.collect()
    if sys.platform != "linux":
        return 0, work()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
    before = resident("VmRSS")
    result = work()
    return resident("VmHWM") - before, result


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def compare(
    name: str,
    plain: Callable[[], torch.Tensor],
    ours: Callable[[], torch.Tensor],
    repeats: int,
    rtol: float,
    atol: float,
) -> dict:
    """Run both in turn; raise when results differ by more than the tolerance.

    Seconds are CPU seconds of this process when it has one thread (other work on the machine then counts
    little), wall seconds otherwise.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    memory: dict[str, int] = {}
    difference = 0.0
    for _ in range(repeats):
        results = {}
        for side, work in (("plain", plain), ("ours", ours)):
            started = clock()
            peak, results[side] = peak_memory_bytes(work)
            seconds[side].append(clock() - started)
            memory[side] = max(memory.get(side, 0), peak)
        torch.testing.assert_close(results["ours"], results["plain"], rtol=rtol, atol=atol)
        difference = max(difference, (results["ours"] - results["plain"]).abs().max().item())
    ratios = [a / b for a, b in zip(seconds["plain"], seconds["ours"], strict=True)]
    return {
        "name": name,
        "plain_seconds": statistics.median(seconds["plain"]),
        "ours_seconds": statistics.median(seconds["ours"]),
        "speedup": statistics.median(ratios),
        "speedup_range": [min(ratios), max(ratios)],
        "plain_peak_mib": memory["plain"] / 2**20,
        "ours_peak_mib": memory["ours"] / 2**20,
        "max_difference": difference,
        "tolerance": {"rtol": rtol, "atol": atol},
        "repeats": repeats,
    }


def report(rows: list[dict], out: Path | None) -> None:
    """Print a table; write JSON when asked."""
    table = Table("", "plain s", "ours s", "times faster", "plain MiB", "ours MiB", "difference", box=None)
    for row in rows:
        low, high = row["speedup_range"]
        table.add_row(
            row["name"],
            f"{row['plain_seconds']:.3f}",
            f"{row['ours_seconds']:.3f}",
            f"{row['speedup']:.2f} [{low:.2f}, {high:.2f}]",
            f"{row['plain_peak_mib']:.0f}",
            f"{row['ours_peak_mib']:.0f}",
            f"{row['max_difference']:.1e} (allowed {row['tolerance']['atol']:g})",
        )
    Console(width=140).print(table)
    if out is not None:
        machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "cpus": os.cpu_count()}
        out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n", encoding="utf-8")
