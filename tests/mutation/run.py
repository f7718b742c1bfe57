"""Mutation testing: change the numeric code at random places, and see whether the fast tests notice.

    python tests/mutation/run.py [--per-module 8] [--seed 0] [--jobs 2] [--only training/loop ...]

Each worker has a copy of the repository, into which one mutant after the other is written. Its tests run in a
process that is forked from one that has loaded the libraries, which saves most of the time. Prints the score
of each folder and what survived; every mutant is listed in `.mutation/results.jsonl`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
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
MAX_TEST_SECONDS = 40.0  # of a mutant: test files that take longer in all are left out, the slowest first
MAX_FILE_SECONDS = 300.0  # of a file that is measured


@dataclass(frozen=True)
class Verdict:
    """What the tests said: `killed`, `timeout` (killed as well) or `survived`."""

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
            seconds = dict(zip(tests, pool.map(measure, tests, chunksize=1), strict=True))
            if broken := [file for file in tests if seconds[file] is None]:
                sys.exit(f"These fail without any mutant: {', '.join(broken)}.")
            jobs = [
                (mutant, *chosen_tests(files[name], seconds))
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


def measure(file: str) -> float | None:
    """Return the seconds of a test file without mutants; None when it fails."""
    started = time.monotonic()
    code = run_tests([file], MAX_FILE_SECONDS, keep_bytecode=True)
    return time.monotonic() - started if code == 0 else float("inf") if code is None else None


def chosen_tests(files: list[str], seconds: dict[str, float]) -> tuple[list[str], float]:
    """Return the quickest test files that fit into the limit, one at least, and a time limit for them."""
    chosen: list[str] = []
    total = 0.0
    for file in sorted(files, key=lambda name: seconds[name]):
        if chosen and total + seconds[file] > MAX_TEST_SECONDS:
            break
        chosen.append(file)
        total += seconds[file]
    return chosen, 30.0 + 4 * total


def judge(job: tuple[Mutant, list[str], float]) -> Verdict:
    """Write the mutant into this worker's copy, run its tests, put the code back."""
    mutant, files, limit = job
    path = Path(mutant.module)
    original, status = path.read_bytes(), path.stat()
    started = time.monotonic()
    try:
        path.write_text(mutant.code, encoding="utf-8")
        code = run_tests(files, limit)
    finally:
        path.write_bytes(original)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as the compiled files remember it
    outcome = "timeout" if code is None else "killed" if code else "survived"
    return Verdict(mutant, outcome, time.monotonic() - started)


def run_tests(files: list[str], limit_seconds: float, keep_bytecode: bool = False) -> int | None:
    """Run test files in a forked process until one test fails; None when the time is over."""
    child = os.fork()
    if child == 0:
        os.setsid()
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
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


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
