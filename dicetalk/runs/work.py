"""The folder of a stage's unfinished work, `runs/<stage>-<key>/`.

The key is made of everything that decides the result (`dicetalk.runs.declaration`): digests of the code,
the parameters one by one, the content of the inputs. The same command finds the folder again as long as
nothing of that has changed, however often it was killed. Work whose code has changed is never mixed with new
work unasked: `compute.resume` decides. Work that is finished goes as soon as DVC has recorded it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from dicetalk.compute.launch import DVC_STAGE, SAVE_SECONDS, is_main_process, is_started_process
from dicetalk.errors import DicetalkError
from dicetalk.files import read_json, write_json
from dicetalk.progress import log
from dicetalk.runs.checked import read_checked, write_checked
from dicetalk.runs.code import code_digests
from dicetalk.runs.content import content_hashes
from dicetalk.runs.declaration import Declaration, read_declaration
from dicetalk.runs.edits import changed_keys, differences, refuse_edits
from dicetalk.runs.recorded import entry_digest, is_as_recorded, is_recorded

RUNS = Path("runs")
FOLDER_VARIABLE = "DICETALK_RUN_FOLDER"  # tells the processes of a distributed training
LOCK_SECONDS = SAVE_SECONDS  # a stopped training may still be saving
MADE_OF, FINISHED, CODE_CHANGES = "made_of.json", "finished.json", "resumed_across_code_changes"
CONSENT = f"{CODE_CHANGES}.json"

Resume = Literal["stop", "accept-code-change", "start-over"]


@dataclass(frozen=True)
class Work:
    """The unfinished work of a stage.

    Attributes:
        folder: where it is.
        code_changes: modules that changed while it was under way, each time by consent.
    """

    folder: Path
    code_changes: list[str]

    def tags(self) -> dict[str, str]:
        """Return what the tracker should know."""
        return {f"dicetalk.{CODE_CHANGES}": ", ".join(self.code_changes)} if self.code_changes else {}


@contextmanager
def stage_work(name: str, resume: Resume, also: Sequence[Any] = ()) -> Iterator[Work]:
    """Open the work of a stage and, when the block ends well, mark it as finished.

    Args:
        name: of the stage in `dvc.yaml`, e.g. `encode@mead`.
        resume: what to do with unfinished work whose code has changed, `compute.resume`.
        also: what decides the result besides what is declared, such as networks that this machine lacks.

    Raises:
        DicetalkError: when the code of unfinished work has changed and `resume` is `stop`, another process
            runs the stage, or what the stage is made of changed while it ran.
    """
    if is_started_process():  # the process that started this one holds the lock
        folder = Path(os.environ[FOLDER_VARIABLE])
        yield Work(folder, _code_changes(folder))
        return
    declaration = read_declaration(name)
    made_of = _made_of(declaration, also)
    folder = RUNS / f"{_prefix(name)}{_key(made_of)}"
    if not is_main_process():  # of torchrun or accelerate launch: the main one looks after the folder
        yield Work(folder, [])
        return
    with _alone(name):
        remove_recorded()
        _open(name, folder, made_of, resume)
        changes = _code_changes(folder)
        os.environ[FOLDER_VARIABLE] = str(folder)
        try:
            yield Work(folder, changes)
        finally:
            del os.environ[FOLDER_VARIABLE]
        refuse_edits(name, made_of, _made_of(read_declaration(name), also))
        _note_code_changes(declaration, changes)
        if is_as_recorded(declaration):
            shutil.rmtree(folder)
        else:
            write_checked(folder / FINISHED, {"stage": name, "entry": entry_digest(name)})


def _made_of(declaration: Declaration, also: Sequence[Any]) -> dict[str, Any]:
    return {
        "code": code_digests(declaration.code),
        "params": declaration.params,
        "inputs": content_hashes(declaration.inputs),
        "also": list(also),
    }


def _open(name: str, folder: Path, made_of: dict[str, Any], resume: Resume) -> None:
    """Bring the folder into the state from which the stage goes on."""
    for other, its in _others(name, folder):
        if (other / FINISHED).is_file():  # of other code or parameters, and never recorded: nobody's result
            shutil.rmtree(other)
            continue
        changed = [part for part in ("params", "inputs", "also") if its.get(part) != made_of[part]]
        if changed:
            log(
                f"{name}: not going on with {other}, because of other {differences(its, made_of, changed)}; "
                "it is kept, remove it when it is of no more use"
            )
            continue
        modules = changed_keys(its["code"], made_of["code"])
        if not may_go_on(name, other, modules, resume):
            shutil.rmtree(other)
        elif not folder.exists():
            write_checked(other / CONSENT, sorted({*_code_changes(other), *modules}))
            os.replace(other, folder)
    if (folder / FINISHED).is_file():
        log(f"{name}: {folder} is finished, but DVC was stopped before it recorded it; taking it over")
        (folder / FINISHED).unlink()
    if _read_made_of(folder) is None:  # new, or damaged: its name says that it is made of this
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / MADE_OF, made_of)
    for leftover in list(folder.rglob(".*")):
        _remove(leftover)


def may_go_on(name: str, folder: Path, modules: list[str], resume: Resume) -> bool:
    """Return whether unfinished work whose code changed may go on; if not, it is to be removed.

    Args:
        name: what is at work, for the log.
        folder: of the work.
        modules: those that changed.
        resume: `compute.resume`.

    Raises:
        DicetalkError: when that is `stop`.
    """
    if resume == "stop":
        raise DicetalkError(
            f"{', '.join(modules)} changed since the unfinished run {folder} began. To start over: "
            "compute.resume: start-over in params.yaml, or remove the folder. To go on with it all the same, "
            "which the results will say: compute.resume: accept-code-change."
        )
    if resume == "start-over":
        log(f"{name}: removing the unfinished run {folder}, whose code changed: {', '.join(modules)}")
        return False
    log(f"{name}: going on with {folder} although its code changed: {', '.join(modules)}")
    return True


def _others(name: str, folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the stage's other folders and what they were made of, the newest first."""
    pattern = re.compile(re.escape(_prefix(name)) + r"[0-9a-f]{12}")
    found = [path for path in RUNS.glob(f"{_prefix(name)}*") if pattern.fullmatch(path.name)]
    others = []
    for path in sorted(found, key=_age):
        if path == folder:
            continue
        if (its := _read_made_of(path)) is not None:
            others.append((path, its))
        else:
            log(f"{name}: {path / MADE_OF} is missing or damaged; not going on with {path}, remove it")
    return others


def _read_made_of(folder: Path) -> dict[str, Any] | None:
    """Return what a folder is made of; None unless it agrees with the folder's name."""
    try:
        content = json.loads((folder / MADE_OF).read_bytes())
        key = _key({part: content[part] for part in ("code", "params", "inputs", "also")})
        return content if folder.name.endswith(key) else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _age(folder: Path) -> float:
    return -folder.stat().st_mtime


def sweep() -> None:
    """Remove, when DVC starts a stage, finished work that it has recorded and what killed processes left."""
    if DVC_STAGE in os.environ and is_main_process() and not is_started_process():
        remove_recorded()
        remove_leftovers(os.environ[DVC_STAGE])


def remove_recorded() -> None:
    """Remove finished work of all stages whose results DVC has recorded since.

    The entry must be another than before, and a whole one: a kill may leave half of it.
    """
    for marker in RUNS.glob(f"*/{FINISHED}"):
        finished = read_checked(marker)
        if finished is None or entry_digest(finished["stage"]) == finished["entry"]:
            continue
        try:
            declaration = read_declaration(finished["stage"])
        except KeyError:  # the stage is no longer in dvc.yaml
            continue
        if is_recorded(declaration):
            shutil.rmtree(marker.parent)


def remove_leftovers(name: str) -> None:
    """Remove what killed processes left half-written beside a stage's outputs, see `dicetalk.files`."""
    for out in map(Path, read_declaration(name).outs):
        pattern = re.compile(re.escape(f".{out.stem}") + r"(\.\w+)?-\w{4,8}(\.\w+)?")
        for path in out.parent.glob(".*"):
            if pattern.fullmatch(path.name):
                _remove(path)


def _note_code_changes(declaration: Declaration, changes: list[str]) -> None:
    """Write into metrics and models that the code changed while they were made."""
    for out in map(Path, declaration.outs) if changes else ():
        if out.suffix == ".json":
            write_json(out, {**read_json(out), CODE_CHANGES: changes})
        elif out.is_dir():
            write_json(out / CONSENT, changes)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Keep other processes from the stage's work; the lock of a killed one is free."""
    path = RUNS / "locks" / _prefix(name).rstrip("-")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        log(f"{name}: another process is at work on it; waiting up to {LOCK_SECONDS:.0f} s for its end")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise DicetalkError(f"another process is at work on {name}; wait for it or end it.") from None
    try:
        yield
    finally:
        lock.release()


def _prefix(name: str) -> str:
    return f"{name.replace('@', '-')}-"


def _key(made_of: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]


def _code_changes(folder: Path) -> list[str]:
    if not (folder / CONSENT).exists():
        return []
    return read_checked(folder / CONSENT) or [f"unknown: {folder / CONSENT} was damaged"]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
