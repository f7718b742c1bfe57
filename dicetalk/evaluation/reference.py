"""The tables of `docs/metrics.md`, written by `python -m dicetalk.evaluation.reference`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.metrics.table import by_topic
from dicetalk.evaluation.protocol import FOLDER, load_protocol
from dicetalk.evaluation.systems import SYSTEMS
from dicetalk.files import atomic_path

PAGE = Path("docs/metrics.md")


def metrics_table() -> str:
    """Return the table of metrics in Markdown, as pages order them."""
    protocols = {path.stem: load_protocol(path.stem).definition for path in sorted(FOLDER.glob("*.yaml"))}
    return _table(
        ("metric", "better", "unit", "read by", "floor", "protocols", "definition"),
        (
            (
                f"`{row.name}`",
                row.better,
                row.unit,
                row.role,
                f"`{row.floor}`" if row.floor else "",
                ", ".join(name for name, definition in protocols.items() if row.name in definition.networks),
                row.definition,
            )
            for row in by_topic()
        ),
    )


def systems_table() -> str:
    """Return the table of systems in Markdown."""
    rows = ((f"`{row.name}`", row.label, row.note, row.tells) for row in SYSTEMS.values())
    return _table(("system", "on pages", "what it is", "what it tells"), rows)


def filled(page: str) -> str:
    """Return the text of a page with both tables between their marks.

    Raises:
        DicetalkError: when the page lacks a mark.
    """
    for name, table in (("metrics", metrics_table()), ("systems", systems_table())):
        begin, end = f"<!-- {name}: written by dicetalk.evaluation.reference -->\n", f"<!-- end of {name} -->"
        parts = re.split(f"{re.escape(begin)}.*?{re.escape(end)}", page, flags=re.DOTALL)
        if len(parts) != 2:
            raise DicetalkError(f"{PAGE} should hold `{begin.strip()}` and `{end}` once each.")
        page = parts[0] + begin + table + end + parts[1]
    return page


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


if __name__ == "__main__":
    text = filled(PAGE.read_text(encoding="utf-8"))
    with atomic_path(PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")
