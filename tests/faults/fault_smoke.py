"""Faults of the smoke profile, each costing one stage that is forced to run again."""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from collections.abc import Iterator

from fault_damage import at, damage, damaging
from fault_kinds import send
from fault_projects import free_space, full_disk
from fault_running import NotInjected, Running
from fault_trial import Attack, Fault, nothing
from projects import Project

KILL, TERM = signal.SIGKILL, signal.SIGTERM
JITTER_SECONDS = 0.5
# stage, signal, who gets it, and what is there by then: text that was printed, or so many files.
KILLS = [
    ("synthesize", KILL, "worker", ("data/synthetic/.mead-*/**/*.mp4", 3)),
    ("synthesize", TERM, "group", ("data/synthetic/.mead-*/**/*.mp4", 12)),
    ("preprocess@mead", KILL, "worker", ("runs/preprocess-mead/*.*", 3)),
    ("preprocess@mead", KILL, "group", ("runs/preprocess-mead/*.*", 10)),
    ("preprocess@hdtf", TERM, "dvc", ("runs/preprocess-hdtf/*.*", 1)),
    ("encode@mead", KILL, "stage", ("runs/encode-mead-*/shard-*", 1)),
    ("encode@mead", TERM, "dvc", ("runs/encode-mead-*/shard-*", 2)),
    ("train_embedder", KILL, "group", "step 6/12"),
    ("train_embedder", TERM, "stage", "step 4/12"),
    ("learn_bank", KILL, "dvc", "step 6/12"),
    ("train_diffusion", KILL, "stage", "step 4/6"),
    ("train_diffusion", TERM, "group", "step 2/6"),
    ("evaluators", KILL, "group", "step 4/8"),
    ("generate", KILL, "group", ("runs/generate-*/ours/*.mp4", 2)),
    ("generate", KILL, "worker", ("runs/generate-*/ours/*.mp4", 1)),
    ("evaluate", KILL, "stage", ("runs/evaluate-*/*.npz", 5)),
    ("evaluate", TERM, "group", ("runs/evaluate-*/*.npz", 20)),
]


def smoke_faults() -> Iterator[Fault]:
    """Signals to most stages; a damaged checkpoint, a full disk, a broken tracker, an edit."""
    for number, (stage, which, target, when) in enumerate(KILLS):
        yield _fault(
            f"smoke: {which.name} to {target}", stage, number,
            attack=_signal(which, target, when, f"{stage} {number}"),
            before=_forget_clips if stage.startswith("preprocess") else nothing,
        )  # fmt: skip
    killed = _signal(KILL, "group", "step 4/6", "checkpoint")
    yield _fault(
        "smoke: file flipped", "train_diffusion", 0, attack=killed, before=_often,
        between=damaging(at("runs/train_diffusion-*/step-*/weights.safetensors"), "flipped"),
        skipped_checkpoints=1,
    )  # fmt: skip

    def restored(project: Project) -> None:
        damage(project.folder / "data/encoded/mead/shard-000000.safetensors", "cut")

    yield Fault(
        kind="smoke: file cut", place="encoded shard", stage="encode@mead", template="smoke",
        reference="smoke", first_run=False, arguments=("repro", "encode@mead"), between=restored,
    )  # fmt: skip

    def fill(project: Project) -> None:
        _often(project)
        full_disk(project.folder / "runs", 4000)

    yield _fault(
        "smoke: full disk under runs/", "train_diffusion", 0, before=fill,
        between=lambda project: free_space(project.folder / "runs"), first_says="disk is full.*free space",
    )  # fmt: skip

    def garbage(running: Running) -> None:
        _wait(running, "step 4/12")
        (running.project.folder / "mlflow.db").write_bytes(b"not a database" * 1000)

    def aside(project: Project) -> None:
        (project.folder / "mlflow.db").rename(project.folder / "mlflow.db.damaged")

    yield _fault(
        "smoke: tracker: garbage", "train_embedder", 0, attack=garbage,
        told="train_embedder: .*mlflow.db cannot be used.*move mlflow.db away", repair=aside,
    )  # fmt: skip

    edit = ("dicetalk/training/loop.py", "(1.0 + torch.cos(", "(1.1 + torch.cos(")
    file, old, new = edit
    yield _fault(
        "smoke: code edited after kill", "learn_bank", 0,
        attack=_signal(KILL, "group", "step 6/12", "edit"),
        between=lambda project: project.edit(*edit),
        told="dicetalk/training/loop.py changed.*compute.resume: start-over",
        repair=lambda project: project.edit(file, new, old),
    )  # fmt: skip


def _fault(kind: str, stage: str, number: int, **more) -> Fault:
    return Fault(
        kind=kind, place=stage, number=number, stage=stage, template="smoke", reference="smoke",
        arguments=("repro", "--force", "--single-item", stage), **more,
    )  # fmt: skip


def _signal(which: signal.Signals, target: str, when: str | tuple[str, int], seed: str) -> Attack:
    def attack(running: Running) -> None:
        _wait(running, when)
        time.sleep(random.Random(seed).uniform(0, JITTER_SECONDS))
        if running.process.poll() is not None:
            raise NotInjected("the command had ended")
        send(running, which, target)

    return attack


def _wait(running: Running, when: str | tuple[str, int]) -> None:
    def has_come() -> bool:
        if isinstance(when, str):
            return re.search(when, running.text()) is not None
        pattern, count = when
        return len(list(running.project.folder.glob(pattern))) >= count

    if not running.wait_for(has_come):
        raise NotInjected(running.text()[-300:])


def _forget_clips(project: Project) -> None:
    """Let preprocessing work on all clips again, instead of taking over those that did not change."""
    for path in (project.folder / "runs").glob("preprocess-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _often(project: Project) -> None:
    """Save after each step; logged as before, because what is logged is an output."""
    project.set_params(compute__train_diffusion__checkpoint_every_steps=1)
