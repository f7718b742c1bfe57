"""The table of what came of the faults."""

from __future__ import annotations

from pathlib import Path

from fault_trial import Verdict

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


def table(verdicts: list[Verdict]) -> str:
    """Return Markdown: a row for each kind of fault and place."""
    columns = ["kind of fault", "place", "injected", "same bits", "told and repaired", "wrong", "stopped"]
    columns += ["lost work", "tracebacks"]
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    cells = list(dict.fromkeys((verdict.kind, verdict.place) for verdict in verdicts))
    for kind, place in cells:
        rows.append(_row(kind, place, [v for v in verdicts if (v.kind, v.place) == (kind, place)]))
    rows.append(_row("**all**", "", verdicts))
    return "\n".join(rows)


def _row(kind: str, place: str, own: list[Verdict]) -> str:
    injected = [verdict for verdict in own if verdict.result != "not injected"]
    counts = [
        len(injected),
        sum(v.result == "same bits" for v in own),
        sum(v.result == "told and repaired" for v in own),
        sum(v.result == "wrong" for v in own),
        sum(v.result in ("stopped", "not told") for v in own),
        sum(bool(v.lost) for v in own),
        sum(bool(v.tracebacks) for v in own),
    ]
    return f"| {kind} | {place} | " + " | ".join(map(str, counts)) + " |"


def write_table(verdicts: list[Verdict], page: Path) -> None:
    """Put the table between two markers of a page."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{table(verdicts)}\n{END}{after}", encoding="utf-8")
