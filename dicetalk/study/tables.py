"""The analysis of a study as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from dicetalk.study.questions import CRITERIA


def print_analysis(analysis: dict[str, Any]) -> None:
    """Print means, tests, agreement and exclusions of `analyse.analyse_study`."""
    console = Console()
    raters = analysis["raters"]
    kept, excluded = len(raters["kept"]), len(raters["excluded"])
    console.print(f"Study {analysis['study']}: {kept} raters, {excluded} excluded")
    for item in raters["excluded"]:
        console.print(f"  {item['file']}: {item['reason']}", style="yellow", markup=False, highlight=False)
    if ratings := analysis["ratings"]:
        console.print("\nMean rating, 1 to 5 \\[95 % interval over raters]")
        console.print(_means(ratings, analysis["criteria"]))
        console.print("\nDifferences of means")
        console.print(_tests(ratings["tests"], "difference"))
    if preferences := analysis["preferences"]:
        console.print("\nShare that prefers the first; no difference counts half")
        console.print(_tests(preferences["tests"], "share"))
        if preferences["left_share"] is not None:
            console.print(f"{preferences['left_share']:.0%} of the preferences were for A, the left one.")


def _means(ratings: dict[str, Any], criteria: list[str]) -> Table:
    labels = [CRITERIA[name].label for name in criteria]
    table = Table(Column("system", no_wrap=True), *labels, box=None, pad_edge=False)
    for system, entries in ratings["systems"].items():
        table.add_row(escape(system), *(_estimate(entries.get(name)) for name in criteria))
    table.add_row("alpha (ordinal)", *(_number(ratings["agreement"][name]) for name in criteria), style="dim")
    return table


def _tests(tests: list[dict[str, Any]], name: str) -> Table:
    columns = Column("criterion", no_wrap=True), "first", "second", name, "raters", "p", "p (Holm)"
    table = Table(*columns, box=None, pad_edge=False)
    for test in tests:
        table.add_row(
            CRITERIA[test["criterion"]].label,
            escape(test["first"]),
            escape(test["second"]),
            _estimate(test),
            str(test["n_raters"]),
            _number(test["p"], 4),
            _number(test["p_holm"], 4),
            style="bold" if test["p_holm"] < 0.05 else None,
        )
    return table


def _estimate(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    interval = " \\[{:.2f}, {:.2f}]".format(*entry["ci95"]) if entry["ci95"] else ""
    return f"{entry['value']:.2f}{interval}"


def _number(value: float | None, digits: int = 2) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"
