"""`dicetalk study`: a blinded user study, from the videos to the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

study_app = typer.Typer(
    no_args_is_help=True,
    help="A blinded user study of several systems' videos: build its page, analyse results.",
)


def named_paths(values: list[str], option: str) -> dict[str, Path]:
    """Return name -> path of options like `NAME=PATH`.

    Raises:
        DicetalkError: when one has another form, its path does not exist, or a name is given twice.
    """
    from dicetalk.errors import DicetalkError

    found: dict[str, Path] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not name.strip() or not equals or not path:
            raise DicetalkError(f"{option} {value}: expected NAME=PATH, like ours=outputs/ours.")
        if name in found:
            raise DicetalkError(f"{option} {value}: the name {name!r} is given twice.")
        if not Path(path).exists():
            raise DicetalkError(f"{option} {value}: {path} does not exist.")
        found[name] = Path(path)
    return found


@study_app.command()
def build(
    system: Annotated[
        list[str],
        typer.Option(help="NAME=FOLDER of its videos, twice or more; equal file names belong together."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write: the page that raters open.")],
    key: Annotated[
        Path | None, typer.Option(help="File to write: which video is whose. Default: OUT.key.json.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Table with `clip_id` and `emotion`: CSV, or a manifest.parquet.",
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the page; must not tell what is compared.")] = (
        "Talking faces: your opinion"
    ),
    clips: Annotated[int, typer.Option(min=1, help="How many clips are used, evenly over emotions.")] = 16,
    raters: Annotated[int, typer.Option(min=1, help="How many participant numbers there are.")] = 20,
    ratings: Annotated[int, typer.Option(min=0, help="Single videos per rater.")] = 24,
    pairs: Annotated[int, typer.Option(min=0, help="Comparisons of two videos per rater.")] = 12,
    checks: Annotated[int, typer.Option(min=0, help="Attention checks per rater.")] = 4,
    seed: Annotated[int, typer.Option(help="Of all random choices.")] = 0,
) -> None:
    """Write the page of a study: open OUT/index.html from a disk, or put OUT on any web server.

    Without `--labels` raters are asked for any clear emotion instead of the wanted one.

    Example: `dicetalk study build --system ours=outputs/generated/ours --system other=other/videos --labels
    outputs/generated/manifest.parquet --out study`
    """
    from dicetalk.study.build import Plan, build_study
    from dicetalk.study.design import Size
    from dicetalk.study.sources import read_labels

    plan = Plan(title, clips, Size(raters, ratings, pairs, checks), seed)
    key = key or out.with_name(f"{out.name}.key.json")
    build_study(named_paths(system, "--system"), read_labels(labels) if labels else None, plan, out, key)
    typer.echo(out / "index.html")
    typer.echo(key)


@study_app.command()
def analyse(
    results: Annotated[list[Path], typer.Argument(exists=True, help="Files of raters, or folders of them.")],
    key: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="The key that `study build` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Also write everything as JSON.")] = None,
) -> None:
    """Analyse what raters sent back: means, 95 % intervals, tests, agreement, and who was excluded and why.

    The rater is the unit everywhere: intervals and tests tell what to expect of other raters.

    Example: `dicetalk study analyse inbox --key study.key.json --out study-results.json`
    """
    from dicetalk.files import write_json
    from dicetalk.study.analyse import analyse_study
    from dicetalk.study.key import read_key
    from dicetalk.study.results import result_files
    from dicetalk.study.tables import print_analysis

    analysis = analyse_study(result_files(results), read_key(key))
    print_analysis(analysis)
    if out is not None:
        write_json(out, analysis)
