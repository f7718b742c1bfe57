"""Faults of the tiny pipeline that damage files, edit code, or break the tracker."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from fault_kinds import kill, newest_run, without_lock
from fault_projects import CODE_EDIT, contents
from fault_running import NotInjected, Running
from fault_trial import Change, Fault
from projects import Project

HOWS = ("flipped", "cut", "emptied", "deleted")
CHECKPOINT = ("weights.safetensors", "ema.safetensors", "optimizer.safetensors", "loop.json", "manifest.json")
KILLED_AT = 15  # steps; there are two checkpoints then
LOCKS = {
    "cut": lambda text: text[: len(text) * 2 // 3 - 3],
    "garbage": lambda text: "\x00\x01{[" + text[10:],
    "conflict markers": lambda text: text.replace(
        "schema: '2.0'\n", "<<<<<<< HEAD\nschema: '2.0'\n=======\nschema: '2.0'\n>>>>>>> other\n"
    ),
    "emptied": lambda text: "",
}
DVC_SAYS = r"dvc\.lock'( is invalid| validation failed|, YAML)"  # one readable line each
Pick = Callable[[Project], Path]


def damage(path: Path, how: str) -> None:
    """Flip a bit in the middle, cut at two thirds, empty or delete a file."""
    content = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
        return
    if how == "flipped":
        content[len(content) // 2] ^= 4
    path.write_bytes({"flipped": content, "cut": content[: len(content) * 2 // 3], "emptied": b""}[how])


def damaging(pick: Pick, how: str) -> Change:
    """Return what damages the file that `pick` finds."""
    return lambda project: damage(pick(project), how)


def at(pattern: str, newest: int = 0) -> Pick:
    """Return what finds the last file of a pattern, or one that comes so many before."""
    return lambda project: sorted(project.folder.glob(pattern))[-1 - newest]


def damaged_results() -> Iterator[Fault]:
    """Finished results that are damaged before the next `dvc repro`."""
    files = {
        "processed shard": "data/processed/tiny/shard-000001.tar",
        "encoded shard": "data/encoded/tiny/shard-000001.safetensors",
        "model": "models/tiny/model.safetensors",
        "metrics": "metrics/train.json",
    }
    for place, pattern in files.items():
        for number, how in enumerate(HOWS):
            yield Fault(
                kind=f"file {how}", place=place, number=number, stage="all", template="finished",
                first_run=False, arguments=("repro",), between=damaging(at(pattern), how),
            )  # fmt: skip
    for number, (how, change) in enumerate(LOCKS.items()):

        def spoil(project: Project, change=change) -> None:
            lock = project.folder / "dvc.lock"
            lock.write_text(change(lock.read_text()))

        yield Fault(
            kind=f"file {how}", place="dvc.lock", number=number, stage="all", template="finished",
            first_run=False, arguments=("repro",), between=spoil,
            told=DVC_SAYS, repair=without_lock,
        )  # fmt: skip
    yield Fault(
        kind="file deleted", place="dvc.lock", stage="all", template="finished", first_run=False,
        arguments=("repro",), between=without_lock,
    )  # fmt: skip


def damaged_work() -> Iterator[Fault]:
    """Unfinished work that is damaged between a kill and the next command."""
    killed = kill(signal.SIGKILL, "group", KILLED_AT)

    def train(kind: str, place: str, number: int, between: Change, **more) -> Fault:
        return Fault(
            kind=kind, place=place, number=number, stage="train", attack=killed, between=between, **more
        )

    for file_number, file in enumerate(CHECKPOINT):
        for number, how in enumerate(HOWS):
            if file_number and (file_number + number) % 2:
                continue
            pick = at(f"runs/train-*/step-*/{file}")
            yield train(
                f"file {how}", "checkpoint", 10 * file_number + number, damaging(pick, how),
                skipped_checkpoints=1,
            )  # fmt: skip

    def both(project: Project) -> None:
        for newest in (0, 1):
            damage(at("runs/train-*/step-*/weights.safetensors", newest)(project), "flipped")

    def remove(project: Project) -> None:
        shutil.rmtree(newest_run(project, "train"))

    yield train(
        "file flipped", "all checkpoints", 0, both, may_lose=True, repair=remove,
        told=r"weights.safetensors is damaged.*remove runs/train-\w+ to start over",
    )  # fmt: skip
    for number, how in enumerate(HOWS):
        pick = at("runs/train-*/made_of.json")
        yield train(f"file {how}", "made_of.json", number, damaging(pick, how))
        yield train(f"file {how}", "content.json", number, damaging(at("runs/content.json"), how))
    for number, how in enumerate(("flipped", "cut")):
        pick = at("runs/train-*/log.jsonl")
        yield train(f"file {how}", "log.jsonl", number, damaging(pick, how), may_lose=True)

    def remove_clips(project: Project) -> None:
        shutil.rmtree(project.folder / "runs/preprocess-tiny")

    for number, how in enumerate(("flipped", "cut", "emptied")):
        yield Fault(
            kind=f"file {how}", place="made_of.json of clips", number=number, stage="clips",
            attack=kill(signal.SIGKILL, "group", 5), may_lose=True, repair=remove_clips,
            between=damaging(at("runs/preprocess-tiny/made_of.json"), how),
            told="preprocess-tiny/made_of.json is damaged; remove .*runs/preprocess-tiny to work",
        )  # fmt: skip
    for number, how in enumerate(HOWS):
        yield Fault(
            kind=f"file {how}", place="finished.json", number=number,
            dvc=(sys.executable, "sabotaged_dvc.py"), variables={"DVC_FAULT": "stage-ended"},
            between=damaging(at("runs/train-*/finished.json"), how),
        )  # fmt: skip
    items = {
        "encode": "runs/encode-*/shard-000000.safetensors",
        "measure": "runs/measure-*/*.npz",
        "clips": "runs/preprocess-tiny/*.tar",
    }
    for stage, pattern in items.items():
        for number, how in enumerate(("flipped", "cut", "deleted")):
            yield Fault(
                kind=f"file {how}", place=f"unfinished {stage}", number=number, stage=stage,
                attack=kill(signal.SIGKILL, "group", 5), between=damaging(at(pattern), how), may_lose=True,
            )  # fmt: skip


def stale_leftovers() -> Iterator[Fault]:
    """Half-written folders of killed processes lie beside results and inputs."""
    names = ("data/encoded/.tiny-abcd1234", "models/.tiny-wxyz5678", "data/raw/.clip-abcd1234")
    for number, name in enumerate(names):

        def leave(project: Project, name: str = name) -> None:
            folder = project.folder / name
            folder.mkdir(parents=True)
            (folder / "shard-000000.safetensors").write_bytes(b"half")

        yield Fault(
            kind="stale leftover", place="finished", number=number, stage="all", template="finished",
            first_run=False, arguments=("repro",), between=leave, runs_nothing=True,
        )  # fmt: skip
        yield Fault(
            kind="stale leftover", place="unfinished train", number=number,
            attack=kill(signal.SIGKILL, "group", KILLED_AT), between=leave,
        )  # fmt: skip

    def in_run(project: Project) -> None:
        (newest_run(project, "train") / ".step-000099-abcdefgh").mkdir()

    yield Fault(
        kind="stale leftover", place="unfinished train", number=3,
        attack=kill(signal.SIGKILL, "group", KILLED_AT), between=in_run,
    )  # fmt: skip


# A comment, and an edit that changes the result, of the stage and of the library.
EDITS = {
    "comment of stage": ("stages/tiny_train.py", "    return Fit()", "    # a line\n    return Fit()"),
    "comment of library": ("dicetalk/training/loop.py", "    # Done?\n", "    # Is it done?\n"),
}
WHILE = "changed while train ran.*run the same command again"
STOP_LINE = r"stages/tiny_train.py changed.*compute.resume: start-over"


def edits() -> Iterator[Fault]:
    """Code that is edited while a training is unfinished, or under way."""
    killed = kill(signal.SIGKILL, "group", KILLED_AT)
    for number, edit in enumerate(EDITS.values()):
        yield Fault(
            kind="comment edited after kill", place="train", number=number, attack=killed,
            between=lambda project, edit=edit: project.edit(*edit),
        )  # fmt: skip

    def edit_code(project: Project) -> None:
        project.edit(*CODE_EDIT)

    def start_over(project: Project) -> None:
        project.set_params(compute__resume="start-over")

    def accept(project: Project) -> None:
        project.set_params(compute__resume="accept-code-change")

    def undo(project: Project) -> None:
        file, old, new = CODE_EDIT
        project.edit(file, new, old)

    def marked(project: Project, reference: dict[str, str]) -> dict[str, str]:
        """Whatever it is, as long as model and metrics say so."""
        assert "tiny_train" in (project.folder / "metrics/train.json").read_text()
        assert (project.folder / "models/tiny/resumed_across_code_changes.json").is_file()
        return contents(project, ["models/tiny", "metrics/train.json"])

    common = {"kind": "code edited after kill", "place": "train", "attack": killed, "told": STOP_LINE}
    yield Fault(**common, number=0, between=edit_code, repair=start_over, reference="edited", may_lose=True)
    yield Fault(**common, number=1, between=edit_code, repair=accept, expected=marked)
    yield Fault(**common, number=2, between=edit_code, repair=undo)

    clip = ("dicetalk/data/clip.py", "SILENCE_DB =", "# As good as nothing.\nSILENCE_DB =")
    yield Fault(
        kind="comment edited after kill", place="clips", stage="clips",
        attack=kill(signal.SIGKILL, "group", 5), between=lambda project: project.edit(*clip),
    )  # fmt: skip

    def edit_running(running: Running) -> None:
        log = running.project.folder / "work.log"
        if not running.wait_for(lambda: log.is_file() and log.read_text().count("\n") >= 5):
            raise NotInjected(running.text()[-300:])
        edit_code(running.project)

    def params_running(running: Running) -> None:
        log = running.project.folder / "work.log"
        if not running.wait_for(lambda: log.is_file() and log.read_text().count("\n") >= 5):
            raise NotInjected(running.text()[-300:])
        running.project.set_params(learn_bank__training__lr=0.02)

    yield Fault(
        kind="code edited in mid-run", place="train", attack=edit_running, told=STOP_LINE, repair=start_over,
        reference="edited", may_lose=True,
    )  # fmt: skip
    yield Fault(
        kind="parameter edited in mid-run", place="train", attack=params_running, reference="other-lr",
        may_lose=True,
    )  # fmt: skip
