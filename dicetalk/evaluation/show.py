"""The result of an evaluation in a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Column, Table


def print_report(report: dict[str, Any]) -> None:
    """Print the content of `metrics/evaluate.json`: a table, one column per system, and what is missing."""
    systems = report["systems"]
    table = Table(Column("metric", no_wrap=True), *systems, box=None, pad_edge=False)
    for metric in dict.fromkeys(metric for values in systems.values() for metric in values):
        cells = []
        for values in systems.values():
            entry = values.get(metric)
            low, high = entry["ci95"] if entry else (None, None)
            cells.append(f"{entry['value']:.3f} [{low:.3f}, {high:.3f}]" if entry else "")
        table.add_row(metric, *cells)
    console = Console()
    console.print(f"protocol {report['protocol']['name']}", style="bold")
    console.print(table)
    for metric, network in report["networks"].items():
        console.print(f"{metric}: {network['name']}", style="dim")
    for metric, reason in report["skipped"].items():
        console.print(f"{metric} skipped: {reason}", style="dim", markup=False)
    for pair, tests in report["paired"].items():
        for metric, test in tests.items():
            low, high = test["ci95"]
            found = f"{test['difference']:+.3f} [{low:+.3f}, {high:+.3f}], p {test['p_holm']:.3f} (Holm)"
            console.print(f"{pair}, {metric}: {found}", markup=False)
    for note in report.get("notes", []):
        console.print(f"note: {note['system']} {note['clip_id']}: {note['note']}", markup=False)
    for failure in report["failures"]:
        missing = f"{failure['system']} {failure['clip_id']} ({failure['metric']}): {failure['reason']}"
        console.print(f"not measured: {missing}", style="yellow", markup=False)
