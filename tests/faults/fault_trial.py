"""One fault: inject it, run the same command again, and judge what the user has then."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil
from fault_projects import CLIPS_PER_SHARD, NUM_CLIPS, STAGES, Templates, contents, unmount
from fault_running import NotInjected, Running
from projects import Project

from dicetalk.runs.declaration import load_yaml

ORPHAN_SECONDS = 5.0
TRACEBACK = "Traceback (most recent call last)"
RESUMING = re.compile(r"resuming at step (\d+)")
Attack = Callable[[Running], None]
Change = Callable[[Project], None]


def nothing(project: Project) -> None:
    """Change nothing."""


@dataclass(frozen=True)
class Fault:
    """What to break and what may happen then.

    Attributes:
        kind: row of the table.
        place: column of the table.
        number: tells faults of one kind and place apart.
        stage: that the command makes.
        template: of `Templates`.
        before: changes the project before the command runs for the first time.
        attack: breaks the running command; none: it is left alone.
        between: damages or repairs the project before the command runs again.
        first_run: whether there is a run before the damage.
        variables: of the first run.
        dvc: the program, `dvc` or the one that dies by itself.
        arguments: of it.
        first_says: pattern of the one line with which the first run must stop.
        told: pattern of the one line with which the second run may stop; none: it may not.
        repair: what that line says to do.
        reference: template with the right results.
        skipped_checkpoints: how many of the newest are damaged by `between`.
        expected: what the outputs should be, instead of those of the reference.
        runs_nothing: whether the second run must find everything done.
        may_lose: whether finished work may be done again, because the fault damages it.
    """

    kind: str
    place: str
    number: int = 0
    stage: str = "train"
    template: str = ""
    before: Change = nothing
    attack: Attack | None = None
    between: Change = nothing
    first_run: bool = True
    variables: dict[str, str] = field(default_factory=dict)
    dvc: tuple[str, ...] = ("dvc",)
    arguments: tuple[str, ...] = ()
    first_says: str = ""
    told: str = ""
    repair: Change = nothing
    reference: str = "finished"
    skipped_checkpoints: int = 0
    expected: Callable[[Project, dict[str, str]], dict[str, str]] | None = None
    runs_nothing: bool = False
    may_lose: bool = False

    @property
    def name(self) -> str:
        """Unique, to run it alone."""
        return f"{self.kind}:{self.place}:{self.number}".replace(" ", "-")

    def command(self, again: bool = False) -> list[str]:
        """Return the command; `again`, without what dies by itself."""
        program = ("dvc",) if again else self.dvc
        return [*program, *(self.arguments or ("repro", self.stage))]


@dataclass
class Verdict:
    """What came of it.

    Attributes:
        fault: its name.
        kind: of the fault.
        place: of the fault.
        result: `same bits`, `told and repaired`, `wrong`, `stopped`, `not told` or `not injected`.
        lost: pieces of finished work that were done again.
        tracebacks: number of tracebacks printed.
        orphans: processes that were still there some seconds after the last command.
        detail: for reading.
        seconds: it took.
    """

    fault: str
    kind: str
    place: str
    result: str
    lost: int = 0
    tracebacks: int = 0
    orphans: int = 0
    detail: str = ""
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether a user would be content."""
        trouble = self.lost or self.tracebacks or self.orphans
        return self.result in ("same bits", "told and repaired") and not trouble


def attempt(fault: Fault, templates: Templates) -> Verdict:
    """Inject a fault into a copy of its template and return the verdict; the copy stays if it is bad."""
    import shutil

    started = time.monotonic()
    project = templates.copy(fault.template or f"before-{fault.stage}", fault.name)
    try:
        verdict = _attempt(fault, project, templates)
        verdict.orphans = _count_left(project)
    finally:
        for process in _processes(project):
            process.kill()
        unmount(project)
    verdict.seconds = round(time.monotonic() - started, 1)
    if verdict.is_good:
        shutil.rmtree(project.folder, ignore_errors=True)
    return verdict


def _attempt(fault: Fault, project: Project, templates: Templates) -> Verdict:
    verdict = Verdict(fault.name, fault.kind, fault.place, "not injected")
    fault.before(project)
    outputs = []
    if fault.first_run:
        first = Running(project, fault.command(), project.folder / "first.out", fault.variables)
        try:
            if fault.attack is not None:
                fault.attack(first)
                (project.folder / "fault.fired").touch()
        except NotInjected as why:
            first.wait()
            verdict.detail = str(why)
            return verdict
        code = first.wait()
        outputs.append(first.text())
        outputs += [path.read_text(errors="replace") for path in project.folder.glob("other*.out")]
        said = [line for line in outputs[0].splitlines() if re.search(fault.first_says, line)]
        if fault.first_says and (not code or len(said) != 1):
            verdict.detail = f"first run, exit code {code}: {outputs[0][-600:]}"
        if fault.variables.keys() & {"FAULT_AT", "DVC_FAULT"}:
            if not (project.folder / "fault.fired").exists():
                verdict.detail = f"the moment never came: {outputs[0][-300:]}"
                return verdict
    finished, before = Finished(project, fault), _work(project)
    fault.between(project)
    code, text = _again(project, fault, "second.out")
    outputs.append(text)
    result = "same bits"
    if code:
        lines = [line for line in text.splitlines() if re.search(fault.told, line)] if fault.told else []
        if len(lines) != 1:
            verdict.result, verdict.detail = "stopped", text[-600:]
            verdict.tracebacks = sum(output.count(TRACEBACK) for output in outputs)
            return verdict
        result, verdict.detail = "told and repaired", lines[0][:300]
        fault.repair(project)
        code, text = _again(project, fault, "third.out")
        outputs.append(text)
    verdict.tracebacks = sum(output.count(TRACEBACK) for output in outputs)
    if code:
        verdict.result, verdict.detail = "stopped", text[-600:]
        return verdict
    redone = _work(project)[len(before) :]
    if not fault.may_lose:
        verdict.lost = finished.lost(redone, "".join(outputs[1:]))
    wrong = _differences(fault, project, templates)
    if fault.runs_nothing and redone:
        wrong.append(f"worked again: {redone[:3]}")
    verdict.result = "wrong" if wrong else "not told" if verdict.detail.startswith("first run") else result
    verdict.detail = f"{verdict.detail} {'; '.join(wrong[:4])}".strip()
    return verdict


def _again(project: Project, fault: Fault, output: str) -> tuple[int, str]:
    running = Running(project, fault.command(again=True), project.folder / output, {})
    return running.wait(), running.text()


def _work(project: Project) -> list[str]:
    path = project.folder / "work.log"
    return path.read_text().splitlines() if path.is_file() else []


def outs_of(project: Project, stage: str) -> list[str]:
    """Return the outputs of a stage as `dvc.lock` names them."""
    entry = load_yaml(project.folder / "dvc.lock")["stages"].get(stage, {})
    return [out["path"] for out in entry.get("outs", [])]


def _differences(fault: Fault, project: Project, templates: Templates) -> list[str]:
    """Return what differs from an unbroken run: files on the disk, and what `dvc.lock` says of them."""
    reference = templates.get(fault.reference)
    stages = STAGES if fault.stage == "all" else (fault.stage,)
    outs = [out for stage in stages for out in outs_of(reference, stage)]
    expected = contents(reference, outs)
    expected = fault.expected(project, expected) if fault.expected else expected
    found = contents(project, outs)
    wrong = [name for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)]
    lock = load_yaml(project.folder / "dvc.lock").get("stages", {})
    for stage in stages:
        if stage not in lock:
            wrong.append(f"dvc.lock has no entry of {stage}")
        elif fault.expected is None and project.outs(stage) != reference.outs(stage):
            wrong.append(f"dvc.lock has other hashes for {stage}")
    return wrong


class Finished:
    """Work that was finished before the second run, and so must not be done again."""

    def __init__(self, project: Project, fault: Fault) -> None:
        self.stage, runs = fault.stage, project.folder / "runs"
        self.count = 0
        if fault.stage == "clips":
            folder = runs / "preprocess-tiny"
            results = [*folder.glob("[!.]*.tar"), *folder.glob("[!.]*.json")]
            files = [p for p in results if "crashed" not in p.name and p.name != "made_of.json"]
            packed = (project.folder / "data/processed/tiny/summary.json").is_file() and not folder.exists()
            self.count = NUM_CLIPS if packed else len(files)
        elif fault.stage == "encode":
            self.count = CLIPS_PER_SHARD * len(list(runs.glob("encode-*/shard-*.safetensors")))
        elif fault.stage == "measure":
            self.count = len(list(runs.glob("measure-*/[!.]*.npz")))
        elif "train" in fault.stage:
            steps = sorted(
                int(path.name.removeprefix("step-"))
                for path in runs.glob(f"{fault.stage}-*/step-*")
                if path.is_dir()
            )
            left = steps[: len(steps) - fault.skipped_checkpoints]
            self.count = left[-1] if left else 0

    def lost(self, redone: list[str], output: str) -> int:
        """Return how many finished pieces were done again; of a training, steps."""
        if self.stage == "all":  # DVC's run cache has everything
            return len(redone)
        own = [line for line in redone if line.startswith(self.stage)]
        if "train" in self.stage:
            steps = [int(line.split()[1]) for line in own] or [int(s) for s in RESUMING.findall(output)]
            return max(0, self.count - min(steps)) if steps else 0
        return max(0, len(own) - (NUM_CLIPS - self.count))


def _processes(project: Project) -> list[psutil.Process]:
    """Return what works in the folder of a trial: nothing but what it started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(project.folder):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _count_left(project: Project) -> int:
    ends = time.monotonic() + ORPHAN_SECONDS
    while (left := len(_processes(project))) and time.monotonic() < ends:
        time.sleep(0.2)
    return left


def show(verdict: Verdict) -> None:
    """Print one line about a verdict."""
    mark = "ok " if verdict.is_good else "BAD"
    extra = f" lost {verdict.lost}" if verdict.lost else ""
    extra += f" processes left {verdict.orphans}" if verdict.orphans else ""
    extra += f" tracebacks {verdict.tracebacks}" if verdict.tracebacks else ""
    print(
        f"{mark} {verdict.fault}: {verdict.result}{extra} ({verdict.seconds:.0f} s) {verdict.detail}",
        file=sys.stderr,
        flush=True,
    )
