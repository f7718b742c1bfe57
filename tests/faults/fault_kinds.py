"""Faults of the tiny pipeline that end it: signals at random moments, deaths at chosen ones, full disks."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fault_projects import NUM_CLIPS, STAGES, free_space, full_disk
from fault_running import NotInjected, Running
from fault_trial import Attack, Fault
from projects import Project

NUM_STEPS = 24
JITTER_SECONDS = 0.15
# Path of the result, relative to the project, and the moments of its coming into being that are dangerous.
MOMENTS = {
    "train": [
        ("checkpoint", "half|*/step-000008|SIGKILL|stage"),
        ("checkpoint", "half|*/step-000008|SIGTERM|stage"),
        ("checkpoint", "before|*/step-000012|SIGKILL|group"),
        ("checkpoint", "after|*/step-000012|SIGKILL|stage"),
        ("checkpoint", "removing|*/step-000004|SIGKILL|stage"),
        ("checkpoint", "after|*/step-000024|SIGKILL|group"),
        ("run folder", "before|*made_of.json|SIGKILL|stage"),
        ("run folder", "half|*log.jsonl|SIGKILL|stage"),
        ("run folder", "before|*finished.json|SIGKILL|group"),
        ("run folder", "after|*finished.json|SIGKILL|group"),
        ("output", "half|models/tiny|SIGKILL|stage"),
        ("output", "after|models/tiny|SIGKILL|stage"),
        ("output", "before|*metrics/train.json|SIGKILL|group"),
    ],
    "encode": [
        ("run folder", "half|*shard-000001.safetensors|SIGKILL|stage"),
        ("run folder", "after|*shard-000002.safetensors|SIGTERM|group"),
        ("output", "half|data/encoded/tiny|SIGKILL|group"),
        ("output", "before|data/encoded/tiny|SIGTERM|stage"),
        ("output", "after|data/encoded/tiny|SIGKILL|stage"),
    ],
    "clips": [
        ("run folder", "half|*preprocess-tiny/*.tar|SIGKILL|group"),
        ("output", "half|*data/processed/tiny|SIGKILL|stage"),
        ("output", "before|*data/processed/tiny|SIGTERM|group"),
        ("output", "after|*data/processed/tiny|SIGKILL|stage"),
        ("run folder", "before|*ledger.json|SIGKILL|stage"),
        ("run folder", "removing|*runs/preprocess-tiny|SIGKILL|group"),
    ],
    "measure": [
        ("run folder", "half|*.npz|SIGKILL|stage"),
        ("output", "half|outputs/measured|SIGKILL|group"),
        ("output", "after|outputs/measured|SIGTERM|stage"),
    ],
}
# The folder that is full, the stage that finds out, and the KiB left when it begins.
FULL = [
    ("runs", "clips", 160),
    ("runs", "encode", 16),
    ("runs", "train", 44),
    ("runs", "train", 4),
    ("runs", "measure", 24),
    ("data", "clips", 240),
    ("data", "encode", 16),
    ("models", "train", 4),
    ("metrics", "train", 0),
]
DVC_MOMENTS = ("stage-ended", "outputs-hashed", "outputs-cached", "lock-half-written", "lock-written")


def two_processes(project: Project) -> None:
    """Train in two processes."""
    project.set_params(compute__learn_bank__num_processes=2)


def pieces(stage: str) -> int:
    """Return how many pieces of work a stage has."""
    return NUM_STEPS if stage == "train" else NUM_CLIPS


def kill(number: signal.Signals, target: str, count: int, delay_seconds: float = 0.0) -> Attack:
    """Return what sends a signal once `count` pieces of work are done."""

    def attack(running: Running) -> None:
        log = running.project.folder / "work.log"
        if not running.wait_for(lambda: log.is_file() and log.read_text().count("\n") >= count):
            raise NotInjected(running.text()[-300:])
        time.sleep(delay_seconds)
        send(running, number, target, count)

    return attack


def send(running: Running, number: signal.Signals, target: str, choice: int = 0) -> None:
    """Send a signal to `group`, `dvc`, `stage` or one `worker` of a running command."""
    if target == "group":
        import os

        os.killpg(running.process.pid, number)
    elif target == "dvc":
        running.process.send_signal(number)
    elif target == "stage":
        stage = running.stage()
        if stage is None:
            raise NotInjected("the stage had ended")
        stage.send_signal(number)
    else:
        workers = running.workers()
        if not workers:
            raise NotInjected("no worker was left")
        workers[choice % len(workers)].send_signal(number)


def kills() -> Iterator[Fault]:
    """Signals at random moments to everything, the stage, a worker of it, or DVC."""
    for number in (signal.SIGKILL, signal.SIGTERM):
        for place in (*STAGES, "train on two processes"):
            stage = place.split()[0]
            targets = ["group", "stage", "dvc"]
            targets += ["worker"] if place in ("clips", "train on two processes") else []
            for target in targets:
                for again in range(2):
                    rng = random.Random(f"{number.name} {place} {target} {again}")
                    count = rng.randint(1, pieces(stage) - 2)
                    delay_seconds = rng.uniform(0, JITTER_SECONDS)
                    both = {"before": two_processes, "reference": "finished-two-processes"}
                    yield Fault(
                        kind=f"{number.name} to {target}",
                        place=place,
                        number=again,
                        stage=stage,
                        attack=kill(number, target, count, delay_seconds),
                        **(both if place != stage else {}),
                    )


def deaths() -> Iterator[Fault]:
    """A signal at the moment when a result comes into being."""
    for stage, moments in MOMENTS.items():
        for number, (what, moment) in enumerate(moments):
            yield Fault(
                kind=f"death while writing {what}", place=stage, number=number, stage=stage,
                variables={"FAULT_AT": moment},
            )  # fmt: skip
    yield Fault(
        kind="death while writing checkpoint", place="train on two processes",
        variables={"FAULT_AT": "half|*/step-000008|SIGKILL|stage"},
        before=two_processes, reference="finished-two-processes",
    )  # fmt: skip


def without_lock(project: Project) -> None:
    """Delete `dvc.lock`, as `docs/operations.md` says where nothing is committed."""
    (project.folder / "dvc.lock").unlink()


def deaths_of_dvc() -> Iterator[Fault]:
    """DVC dies between the end of a stage and its entry in `dvc.lock`."""
    chosen = {"train": DVC_MOMENTS, "clips": DVC_MOMENTS[:3], "encode": DVC_MOMENTS[1:3]}
    for stage, moments in chosen.items():
        for number, moment in enumerate(moments):
            half = moment == "lock-half-written"
            yield Fault(
                kind="death of DVC before its entry", place=stage, number=number, stage=stage,
                dvc=(sys.executable, "sabotaged_dvc.py"), variables={"DVC_FAULT": moment},
                told="ERROR: .*'dvc.lock'" if half else "", repair=without_lock,
            )  # fmt: skip


def full_disks() -> Iterator[Fault]:
    """A file system without room for what the stage writes; then there is room."""
    for number, (name, stage, spare_kib) in enumerate(FULL):

        def fill(project: Project, name: str = name, spare_kib: int = spare_kib) -> None:
            for recorded in (project.folder / "runs").glob("*/finished.json"):
                shutil.rmtree(recorded.parent)  # as the stage would, which makes room
            full_disk(project.folder / name, spare_kib)

        def free(project: Project, name: str = name) -> None:
            free_space(project.folder / name)

        yield Fault(
            kind=f"full disk under {name}/", place=stage, number=number, stage=stage,
            before=fill, between=free, first_says=r"disk is full.*free space",
        )  # fmt: skip


def second_command(*command: str) -> Attack:
    """Return what starts another command beside the first and waits for both."""

    def attack(running: Running) -> None:
        if not running.wait_for((running.project.folder / "work.log").is_file):
            raise NotInjected(running.text()[-300:])
        with open(running.project.folder / "other.out", "w") as stream:
            subprocess.run(
                command, cwd=running.project.folder, env=running.project.environment(),
                stdout=stream, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip

    return attack


def at_the_same_time() -> Iterator[Fault]:
    """Two commands that make the same thing."""
    for stage in ("clips", "encode", "train"):
        yield Fault(
            kind="two dvc repro at once", place=stage, stage=stage,
            attack=second_command("dvc", "repro", stage), runs_nothing=True,
        )  # fmt: skip
        yield Fault(
            kind="stage by hand beside dvc repro", place=stage, stage=stage,
            attack=second_command(sys.executable, "-m", f"stages.tiny_{stage}"), runs_nothing=True,
        )  # fmt: skip


def newest_run(project: Project, stage: str) -> Path:
    """Return the folder of a stage's unfinished work."""
    return max((project.folder / "runs").glob(f"{stage}-*"), key=lambda path: path.stat().st_mtime)
