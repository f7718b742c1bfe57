"""Ablations over seeds: `python -m pipelines.ablate` trains every variant anew and tables what it costs.

Each (variant, seed) is a DVC experiment of the committed state with the overrides of the variant
(`pipelines/ablations/variants.py`), of `ablate.overrides` and of the seed; stages that these do not reach
are taken from DVC's cache. Finished runs are not run again: stop and start as you like. A failed run does
not stop the others.
"""

from __future__ import annotations

import argparse
import queue
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from dicetalk.config import Params, load_params
from dicetalk.errors import DicetalkError, Stopped
from dicetalk.progress import format_seconds, log
from dicetalk.report.ablations import read_ablations, text_table
from dicetalk.tracking.runs import nested_run, pipeline_run
from dicetalk.tracking.tracker import Tracker

from . import dvc
from .ablations.copies import WorkingCopy, check_clean, results
from .ablations.plan import Run, fingerprint, plan_runs
from .ablations.record import RECORD, Record
from .ablations.variants import VARIANTS

WORK = Path("runs/ablate")  # working copies and logs


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run what is not done, print the table; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.ablate", description=__doc__)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), metavar="NAME", choices=VARIANTS)
    parser.add_argument(
        "--seeds", nargs="+", type=int, metavar="N", help="default: ablate.seeds of params.yaml"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time, each in its own copy")
    parser.add_argument("--restart", action="store_true", help="begin a new table after a change of code")
    parser.add_argument("--dry-run", action="store_true", help="say what would run")
    options = parser.parse_args(arguments)
    try:
        if options.jobs < 1:
            raise DicetalkError(f"--jobs must be at least 1, found {options.jobs}.")
        params = load_params()
        base = fingerprint(params)
        runs = plan_runs(params, options.variants, options.seeds or params.ablate.seeds, base)
        record = Record(RECORD, params.profile, params.ablate.overrides, base, options.restart)
        if options.dry_run:
            _describe(params, runs, record)
            return 0
        return ablate(params, runs, record, options.jobs)
    except DicetalkError as error:
        log(f"ablate: {error}")
        return 1


def ablate(params: Params, runs: Sequence[Run], record: Record, jobs: int) -> int:
    """Run what is not done, `jobs` at a time; return 1 when a run failed, else 0.

    Raises:
        DicetalkError: when another call is at work here, or the repository has uncommitted changes.
    """
    root = Path.cwd()
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        with (
            FileLock(WORK / "lock", timeout=0),
            pipeline_run(params.tracking, f"ablate {params.profile}", f"ablate-{runs[0].base}") as parent,
        ):
            copies = [WorkingCopy(root, WORK / f"copy-{number}") for number in range(jobs)]
            todo = [run for run in runs if record.row(run) is None and not _recover(root, run, record)]
            log(f"ablate: {len(runs) - len(todo)} of {len(runs)} runs are done already")
            failed = _run_all(params, todo, record, copies[: len(todo)], parent) if todo else []
            if RECORD.is_file():
                parent.log_artifact(RECORD)
    except Timeout:
        raise DicetalkError(
            f"Another ablation is running in this folder ({WORK / 'lock'} is held)."
        ) from None
    table = read_ablations(RECORD)
    if table is not None:
        print(text_table(table))
    for run, reason in failed:
        log(f"ablate: FAILED {run.variant} seed {run.seed}: {reason}")
    if not failed:
        log(f"ablate: done; {RECORD} has every number. `dvc repro report` shows them in reports/report.html")
    return 1 if failed else 0


def _run_all(
    params: Params, todo: Sequence[Run], record: Record, copies: Sequence[WorkingCopy], parent: Tracker
) -> list[tuple[Run, str]]:
    """Run each, as many at a time as there are copies; return the failed ones with the reason."""
    check_clean(Path.cwd())
    free: queue.SimpleQueue[WorkingCopy] = queue.SimpleQueue()
    for copy in copies:
        log(f"ablate: prepare {copy.folder}")
        copy.prepare()
        free.put(copy)

    def execute(run: Run) -> float:
        copy = free.get()
        tags = {"variant": run.variant, "seed": str(run.seed), "dvc.experiment": run.experiment}
        name = f"{run.variant} seed {run.seed}"
        log(f"ablate: start {name}, log in {_log_file(run)}")
        try:
            with nested_run(params.tracking, parent, name, tags, run.overrides) as tracker:
                seconds = copy.run(run, tracker.environment(), _log_file(run))
                found = results(Path.cwd(), run.experiment)
                assert found is not None  # `copy.run` has just handed it over
                tracker.log_metrics({**found[1], "seconds": seconds})
                tracker.set_tags({"dicetalk.experiment_commit": found[0]})
            return seconds
        finally:
            free.put(copy)

    failed: list[tuple[Run, str]] = []
    started = time.monotonic()
    pool = ThreadPoolExecutor(len(copies))
    try:
        futures = {pool.submit(execute, run): run for run in todo}
        for done, future in enumerate(as_completed(futures), start=1):
            run, error = futures[future], future.exception()
            if error is None:
                _recover(Path.cwd(), run, record, future.result())
            elif isinstance(error, DicetalkError):
                failed.append((run, f"{str(error).splitlines()[0]} Log: {_log_file(run)}"))
            else:
                raise error
            elapsed = time.monotonic() - started
            left = format_seconds(elapsed / done * (len(todo) - done))
            outcome = "done" if error is None else "FAILED"
            log(
                f"ablate: {run.variant} seed {run.seed} {outcome}; {done}/{len(todo)}, "
                f"elapsed {format_seconds(elapsed)}, ETA {left}"
            )
    except BaseException:  # interrupted, or a bug: leave no training behind
        pool.shutdown(wait=False, cancel_futures=True)
        dvc.end_running()
        raise
    pool.shutdown()
    return failed


def _recover(root: Path, run: Run, record: Record, seconds: float | None = None) -> bool:
    """Record a run whose experiment exists, here or in a copy that was not asked for it any more."""
    if results(root, run.experiment) is None:
        for folder in sorted(WORK.glob("copy-*")):
            if (folder / ".git").is_dir():
                WorkingCopy(root, folder).hand_over(run)
    found = results(root, run.experiment)
    if found is not None:
        record.add(run, found[0], seconds, found[1])
    return found is not None


def _describe(params: Params, runs: Sequence[Run], record: Record) -> None:
    """Print what would run, and with which overrides."""
    print("every run: " + ", ".join(f"{key}={value}" for key, value in params.ablate.overrides.items()))
    for run in runs:
        state = "to do" if record.row(run) is None else "done "
        own = {k: v for k, v in run.overrides.items() if params.ablate.overrides.get(k, ...) != v}
        print(f"{state} {run.experiment}: " + ", ".join(f"{key}={value}" for key, value in own.items()))


def _log_file(run: Run) -> Path:
    return WORK / f"{run.experiment}.log"


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Stopped(signal.SIGTERM)  # so that runs are ended


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main())
