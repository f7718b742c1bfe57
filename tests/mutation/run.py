"""Mutation testing: change the numeric code at random places, and see whether the fast tests notice.

    python tests/mutation/run.py [--per-module 8] [--seed 0] [--jobs 2] [--only training/loop ...]

Each worker has a copy of the repository, into which one mutant after the other is written. Its tests run in a
process that is forked from one that has loaded the libraries, which saves most of the time. Prints the score
of each folder and what survived; every mutant is listed in `.mutation/results.jsonl`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import itertools
import json
import math
import multiprocessing
import multiprocessing.pool
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests/mutation"))
from mutants import Mutant, draw, modules, tests_of  # noqa: E402

RESULTS = REPOSITORY / ".mutation"
LIBRARIES = (
    "torch diffusers transformers accelerate pandas scipy.stats scipy.signal sklearn.linear_model cv2 librosa"
)
LIBRARIES += " torchmetrics av pytest pydantic matplotlib"
CLASSES = ("DiffusionPipeline", "UNetSpatioTemporalConditionModel", "EulerDiscreteScheduler", "AutoencoderKL")
# Seconds of processor time, so that a busy machine changes nothing.
MAX_TEST_SECONDS = 30  # of the quickest test files of a mutant; if it survives them, the rest is run
MAX_FILE_SECONDS = 60  # of one file, when it is measured; those that take longer are never used
WAITING_FACTOR = 20  # how much longer it may take by the clock


@dataclass(frozen=True)
class Verdict:
    """What the tests said: `killed`, `timeout` (killed as well) or `survived`; and their processor time."""

    mutant: Mutant
    outcome: str
    seconds: float


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--per-module", type=int, default=8, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="parts of module names")
    given = parser.parse_args()
    names = [m for m in modules(REPOSITORY) if not given.only or any(part in m for part in given.only)]
    files = {name: tests_of(REPOSITORY, name) for name in names}
    untested = [name for name in names if not files[name]]
    if untested:
        sys.exit(f"No test imports {', '.join(untested)}.")
    preload()
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("fork")
        numbers = context.SimpleQueue()
        for number in range(given.jobs):
            numbers.put(copy_repository(Path(folder) / str(number)))
        with context.Pool(given.jobs, start_worker, (numbers,)) as pool:
            tests = sorted({file for found in files.values() for file in found})
            seconds = measure_all(tests, pool)
            unused = [file for file in tests if math.isinf(seconds[file])]
            print(f"not used, because slow or failing without any mutant: {', '.join(unused) or 'none'}")
            if bare := [name for name in names if all(file in unused for file in files[name])]:
                sys.exit(f"No test is left for {', '.join(bare)}.")
            jobs = [
                (mutant, rounds(files[name], seconds))
                for name in names
                for mutant in draw(REPOSITORY, name, given.per_module, given.seed)
            ]
            print(f"{len(jobs)} mutants of {len(names)} modules", flush=True)
            verdicts = []
            for verdict in pool.imap_unordered(judge, jobs):
                verdicts.append(verdict)
                mutant = verdict.mutant
                print(
                    f"{len(verdicts)}/{len(jobs)} {verdict.outcome} {verdict.seconds:.0f} s "
                    f"{mutant.module}:{mutant.line} {mutant.change}",
                    flush=True,
                )
    report(verdicts)


def preload() -> None:
    """Load libraries, but nothing of dicetalk."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    for name in LIBRARIES.split():
        importlib.import_module(name)
    for name in CLASSES:
        getattr(sys.modules["diffusers"], name)


def copy_repository(target: Path) -> Path:
    """Copy what git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    return target


def start_worker(folders: multiprocessing.SimpleQueue) -> None:
    """Give this worker its copy of the repository."""
    os.chdir(folders.get())


def measure(file: str) -> float:
    """Return the seconds of a test file without mutants; infinity when it is not to be used."""
    code, seconds = run_tests([file], MAX_FILE_SECONDS, keep_bytecode=True)
    return seconds if code == 0 else math.inf


def measure_all(tests: list[str], pool: multiprocessing.pool.Pool) -> dict[str, float]:
    """Measure test files, those that have not changed since the last time once only."""
    path = RESULTS / "seconds.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    digests = {file: hashlib.sha256((REPOSITORY / file).read_bytes()).hexdigest() for file in tests}
    new = [file for file in tests if digests[file] not in known]
    known |= zip([digests[file] for file in new], pool.map(measure, new, chunksize=1), strict=True)
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(known))
    return {file: known[digests[file]] for file in tests}


def rounds(files: list[str], seconds: dict[str, float]) -> list[tuple[list[str], int]]:
    """Return the quickest test files and the others, each with a limit of their processor time."""
    usable = sorted((file for file in files if not math.isinf(seconds[file])), key=lambda name: seconds[name])
    total = list(itertools.accumulate(seconds[file] for file in usable))
    quick = max(1, sum(end <= MAX_TEST_SECONDS for end in total))
    return [
        (part, 20 + round(4 * sum(seconds[file] for file in part)))
        for part in (usable[:quick], usable[quick:])
        if part
    ]


def judge(job: tuple[Mutant, list[tuple[list[str], int]]]) -> Verdict:
    """Write the mutant into this worker's copy, run its tests, put the code back."""
    mutant, tests = job
    path = Path(mutant.module)
    original, status = path.read_bytes(), path.stat()
    outcome, seconds = "survived", 0.0
    try:
        path.write_text(mutant.code, encoding="utf-8")
        for files, limit in tests:
            code, taken = run_tests(files, limit)
            seconds += taken
            if code != 0:
                outcome = "timeout" if code is None else "killed"
                break
    finally:
        path.write_bytes(original)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as the compiled files remember it
    return Verdict(mutant, outcome, seconds)


def run_tests(files: list[str], limit_seconds: int, keep_bytecode: bool = False) -> tuple[int | None, float]:
    """Run test files in a forked process until one test fails.

    Returns:
        pytest's exit code, None when the time is over; and the processor time.
    """
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (limit_seconds, limit_seconds))
        sys.dont_write_bytecode = not keep_bytecode
        sys.path[0] = os.environ["PYTHONPATH"] = os.getcwd()
        output = os.open("tests.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = 1
        try:
            import pytest

            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files]))
        finally:
            os._exit(code)
    timer = threading.Timer(WAITING_FACTOR * limit_seconds, stop, (child,))  # for what waits, not computes
    timer.start()
    _, status, usage = os.wait4(child, 0)
    timer.cancel()
    stop(child)  # what it started and left
    seconds = usage.ru_utime + usage.ru_stime
    return (os.WEXITSTATUS(status) if os.WIFEXITED(status) else None), seconds


def stop(group: int) -> None:
    """End a process and those it started, as far as they are still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def report(verdicts: list[Verdict]) -> None:
    """Print scores and survivors, and write all verdicts."""
    RESULTS.mkdir(exist_ok=True)
    ordered = sorted(verdicts, key=lambda verdict: (verdict.mutant.module, verdict.mutant.line))
    with open(RESULTS / "results.jsonl", "w", encoding="utf-8") as stream:
        for verdict in ordered:
            entry = asdict(verdict) | {
                "mutant": {k: v for k, v in asdict(verdict.mutant).items() if k != "code"}
            }
            stream.write(json.dumps(entry) + "\n")
    folders: dict[str, list[bool]] = defaultdict(list)
    for verdict in ordered:
        killed = verdict.outcome != "survived"
        for folder in (Path(verdict.mutant.module).parent.name, "all"):
            folders[folder].append(killed)
        if not killed:
            print(f"survived: {verdict.mutant.module}:{verdict.mutant.line}  {verdict.mutant.change}")
    for folder, killed in folders.items():
        print(f"{folder:12} {sum(killed):4} of {len(killed):4} killed: {sum(killed) / len(killed):.1%}")


if __name__ == "__main__":
    main()
