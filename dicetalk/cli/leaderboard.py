"""`dicetalk leaderboard`: evaluations of several systems on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def leaderboard(
    result: Annotated[
        list[str], typer.Option(help="NAME=FILE, a JSON of `dicetalk evaluate --out`; once per system.")
    ],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("reports/leaderboard.html"),
    study: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="JSON of `study analyse --out`.")
    ] = None,
    embedder: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A `metrics/train_embedder.json`.")
    ] = None,
) -> None:
    """Put evaluations of several systems on one page, one table per protocol, beside the paper's tables.

    Numbers that were read under another protocol or by another network get a table or column of their own.

    Example: `dicetalk leaderboard --result ours=metrics/evaluate.json --result other=other.json`
    """
    from dicetalk.cli.study import named_paths
    from dicetalk.report.leaderboard import build_leaderboard

    build_leaderboard(named_paths(result, "--result"), study, embedder, out)
    typer.echo(out)
