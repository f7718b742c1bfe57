"""The tracking database is damaged or locked, before the training or while it runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from fault_damage import at, damaging
from fault_running import NotInjected, Running
from fault_trial import Change, Fault
from projects import Project


def trackers() -> Iterator[Fault]:
    """The tracking database is damaged or locked, before the training or while it runs."""

    def spoil(how: str) -> Change:
        return damaging(at("mlflow.db"), how) if how != "garbage" else _garbage

    def aside(project: Project) -> None:
        (project.folder / "mlflow.db").rename(project.folder / "mlflow.db.damaged")

    told = "train: .*mlflow.db"
    for number, how in enumerate(("garbage", "cut")):
        yield Fault(
            kind=f"tracker: {how}", place="before training", number=number, template="tracked",
            first_run=False, between=spoil(how), told=told, repair=aside,
        )  # fmt: skip
        yield Fault(
            kind=f"tracker: {how}", place="in training", number=number, template="tracked",
            attack=_while_training(spoil(how)), runs_nothing=True,
        )  # fmt: skip
    yield Fault(
        kind="tracker: emptied", place="before training", template="tracked", first_run=False,
        between=spoil("emptied"),
    )  # fmt: skip
    yield Fault(
        kind="tracker: locked", place="before training", template="tracked", first_run=False,
        between=_lock, told=told, repair=_unlock,
    )  # fmt: skip
    yield Fault(
        kind="tracker: locked", place="in training", template="tracked", attack=_while_training(_lock),
        runs_nothing=True,
    )  # fmt: skip

    def other_server(project: Project) -> None:
        project.set_params(tracking__uri="http://127.0.0.1:9")

    def no_tracker(project: Project) -> None:
        project.set_params(tracking__uri=None)

    yield Fault(
        kind="tracker: no server", place="before training", template="tracked", first_run=False,
        between=other_server, told="tracking.uri", repair=no_tracker,
    )  # fmt: skip


_connections: dict[Path, sqlite3.Connection] = {}


def _lock(project: Project) -> None:
    connection = sqlite3.connect(project.folder / "mlflow.db", isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN EXCLUSIVE")
    _connections[project.folder] = connection


def _unlock(project: Project) -> None:
    _connections.pop(project.folder).close()


def _garbage(project: Project) -> None:
    (project.folder / "mlflow.db").write_bytes(b"not a database" * 1000)


def _while_training(change: Change) -> Callable[[Running], None]:
    def attack(running: Running) -> None:
        log = running.project.folder / "work.log"
        if not running.wait_for(lambda: log.is_file() and log.read_text().count("\n") >= 5):
            raise NotInjected(running.text()[-300:])
        change(running.project)

    return attack
