"""The leaderboard: systems measured here, one table per protocol, and the paper's tables apart from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.metrics.table import METRICS
from dicetalk.evaluation.systems import SYSTEMS, find_system
from dicetalk.files import atomic_path, read_json
from dicetalk.report.graph import load_yaml
from dicetalk.report.readings import Column, Entry, Evaluation, Reading, read_evaluation, reading_of
from dicetalk.report.tables import heading, in_order
from dicetalk.study.questions import CRITERIA
from dicetalk.templating import page_templates

# Two evaluations of the same real clips by the same networks give the same ceiling, up to the machine.
SAME_CEILING = 1e-3
BEST = {"higher": max, "lower": min}  # for others no value is the best


@dataclass
class Board:
    """Everything measured under one protocol.

    Attributes:
        name, sha256, summary: of the protocol.
        rows: row -> role: `ceiling`, `ours` or `floor`.
        columns: in the order of the metrics.
        skipped: metric -> why it is missing.
        warnings: what a reader must know before comparing rows.
    """

    name: str
    sha256: str
    summary: str
    rows: dict[str, str] = field(default_factory=dict)
    columns: dict[Reading, Column] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def build_leaderboard(
    results: Mapping[str, Path], study: Path | None, embedder: Path | None, out: Path
) -> None:
    """Write the page.

    Args:
        results: name of a system -> its `metrics/evaluate.json`, whose `ours` it is.
        study: JSON of `dicetalk study analyse`, for the paper's table 3.
        embedder: `metrics/train_embedder.json`, for the paper's table 5.
        out: HTML file.

    Raises:
        DicetalkError: when a file is missing or of another form, or two numbers claim one cell.
    """
    evaluations = {name: read_evaluation(path) for name, path in results.items()}
    boards = make_boards({name: evaluation for name, (evaluation, _) in evaluations.items()})
    measured = {"study": _study_table(study), "embedder": _embedder_table(embedder)}
    published = []
    for table in load_yaml(Path(__file__).with_name("published.yaml"))["tables"]:
        tables = (
            [board_table(board, table["metrics"]) for board in boards]
            if table["source"] == "evaluation"
            else [measured[table["source"]]]
        )
        published.append({**table, "measured": [item for item in tables if item and item["rows"]]})
    templates = page_templates("dicetalk.report")
    page = templates.get_template("leaderboard.html.j2").render(
        boards=[board_table(board) for board in boards],
        published=published,
        files=[(name, str(results[name]), digest) for name, (_, digest) in evaluations.items()],
    )
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def make_boards(evaluations: Mapping[str, Evaluation]) -> list[Board]:
    """Return one board per protocol; numbers of two protocols or networks never share a column.

    Args:
        evaluations: name of a system -> its evaluation.
    """
    boards: dict[tuple[str, str], Board] = {}
    for name, evaluation in evaluations.items():
        protocol = evaluation.protocol
        board = boards.setdefault(
            (protocol.name, protocol.sha256), Board(protocol.name, protocol.sha256, protocol.summary)
        )
        board.skipped |= evaluation.skipped
        order = [*SYSTEMS, *sorted(evaluation.systems.keys() - SYSTEMS.keys())]
        for system in (system for system in order if system in evaluation.systems):
            _add_system(board, name, system, evaluation)
    return list(boards.values())


def board_table(board: Board, metrics: list[str] | None = None) -> dict[str, Any]:
    """Return a board for the template: all of it, or some metrics, and then without floors."""
    known = in_order({*METRICS, *(reading.metric for reading in board.columns)})
    wanted = known if metrics is None else metrics
    columns = sorted(
        (column for column in board.columns.values() if column.reading.metric in wanted),
        key=lambda column: wanted.index(column.reading.metric),
    )
    rows = [row for row in board.rows if any(row in column.entries for column in columns)]
    ranked = {role: [row for row in rows if board.rows[row] == role] for role in ("ceiling", "ours", "floor")}
    best = {column.reading: _best(column, ranked["ours"]) for column in columns}
    return {
        "caption": f"protocol {board.name}",
        "digest": board.sha256[:12],
        "summary": board.summary if metrics is None else "",
        "warnings": board.warnings,
        "skipped": {name: why for name, why in board.skipped.items() if name in wanted},
        "columns": [_heading(column.reading) for column in columns],
        "rows": [
            {
                "label": row,
                "role": role,
                "cells": [_cell(column.entries.get(row), row == best[column.reading]) for column in columns],
            }
            for role in (("ours", "ceiling", "floor") if metrics is None else ("ours", "ceiling"))
            for row in ranked[role]
        ],
    }


def _add_system(board: Board, name: str, system: str, evaluation: Evaluation) -> None:
    entries = {reading_of(evaluation, metric): entry for metric, entry in evaluation.systems[system].items()}
    row = name if system == "ours" else f"{name}: {find_system(system).label.removeprefix('Ours, ')}"
    if system == "real":
        row = find_system(system).label
        if row in board.rows:
            differing = _differing(board, row, entries)
            if not differing:
                return  # the same ceiling, measured again
            row = f"{row} of {name}"
            board.warnings.append(
                f"{name} was measured on other real clips than the rows above it: the ceiling differs in"
                f" {', '.join(differing)}. Compare it with its own ceiling only."
            )
    board.rows[row] = find_system(system).standing
    for reading, entry in entries.items():
        board.columns.setdefault(reading, Column(reading)).add(row, reading, entry)


def _differing(board: Board, row: str, entries: Mapping[Reading, Entry]) -> list[str]:
    """Return the metrics of which the ceiling is another one, or was read by other networks."""
    found = []
    for reading, entry in entries.items():
        column = board.columns.get(reading)
        other = column.entries.get(row) if column else None
        if other is None or other.n != entry.n:
            found.append(reading.metric)
        elif abs(other.value - entry.value) > SAME_CEILING * max(abs(other.value), abs(entry.value)):
            found.append(reading.metric)
    return found


def _best(column: Column, rows: list[str]) -> str | None:
    """Return the row with the best value; `None` unless all were measured on equally many clips."""
    present = [row for row in rows if row in column.entries]
    if len(present) < 2 or len({column.entries[row].n for row in present}) > 1:
        return None
    row = METRICS.get(column.reading.metric)
    if row is None or row.better not in BEST:
        return None
    return BEST[row.better](present, key=lambda row: column.entries[row].value)


def _heading(reading: Reading) -> dict[str, str]:
    label = "\N{NO-BREAK SPACE}".join(filter(None, heading(reading.metric)))
    digest = f" {reading.network_sha256[:8]}" if reading.network_sha256 else ""
    return {"label": label, "note": f"{reading.network}{digest}" if reading.network else ""}


def _cell(entry: Entry | None, best: bool) -> dict[str, Any] | None:
    if entry is None:
        return None
    return _shown_cell(entry.value, entry.ci95, f"n {entry.n}", best)


def _shown_cell(value: float, ci95: Any, count: str, best: bool = False) -> dict[str, Any]:
    digits = 3 if abs(value) < 10 else 1
    notes = [f"{ci95[0]:.{digits}f} to {ci95[1]:.{digits}f}"] if ci95 else []
    return {"value": f"{value:.{digits}f}", "notes": [*notes, *([count] if count else [])], "best": best}


def _study_table(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    analysis = read_json(path)
    try:
        ratings, raters = analysis["ratings"], len(analysis["raters"]["kept"])
        rows = [
            {
                "label": system,
                "role": "ours",
                "cells": [
                    _shown_cell(entry["value"], entry["ci95"], f"{entry['n_answers']} ratings")
                    if (entry := entries.get(name))
                    else None
                    for name in CRITERIA
                ],
            }
            for system, entries in (ratings["systems"] if ratings else {}).items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DicetalkError(f"{path} is no result of `dicetalk study analyse`: {error!r}") from None
    columns = [{"label": criterion.label, "note": ""} for criterion in CRITERIA.values()]
    summary = f"{raters} raters, mean rating with 95 % interval over raters."
    return _plain_table(f"study {analysis['study']}", summary, columns, rows)


def _embedder_table(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    emotions = ["angry", "contempt", "disgusted", "happy"]
    try:
        strengths = read_json(path)["clustering_strength"]
        rows = [
            {
                "label": label,
                "role": "ours",
                "cells": [_shown_cell(strengths[name][emotion], None, "") for emotion in emotions],
            }
            for name, label in (("audio", "audio"), ("video", "video"), ("both", "video + audio"))
        ]
    except (KeyError, TypeError) as error:
        raise DicetalkError(f"{path} has no clustering strength of the embedder: {error!r}") from None
    summary = "Mean distance to other emotions over mean distance within the emotion; 1 = no clusters."
    return _plain_table("our formula", summary, [{"label": name, "note": ""} for name in emotions], rows)


def _plain_table(caption: str, summary: str, columns: list[dict[str, str]], rows: Any) -> dict[str, Any]:
    return {
        "caption": caption,
        "digest": "",
        "summary": summary,
        "warnings": [],
        "skipped": {},
        "columns": columns,
        "rows": rows,
    }
