"""The `dicetalk weights` commands: list, fetch and check networks, and exchange models with the release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

weights_app = typer.Typer(
    no_args_is_help=True, help="The networks this project can load: list, fetch, check."
)


@weights_app.command("list")
def weights_list() -> None:
    """List every registered network with its licence and whether it is on this machine."""
    from rich.console import Console
    from rich.table import Column, Table

    from dicetalk import weights

    columns = Column("name", no_wrap=True), "role", "licence", "size", "state"
    table = Table(*columns, box=None, pad_edge=False)
    for status in weights.status():
        entry = status.weights
        size = "" if entry.size_bytes is None else f"{entry.size_bytes / 1e6:.1f} MB"
        state = "" if status.path is None else "verified" if status.verified else "present"
        table.add_row(entry.name, entry.role, entry.licence, size, state)
    Console().print(table)


@weights_app.command("fetch")
def weights_fetch(
    names: Annotated[list[str], typer.Argument(help="Names from `dicetalk weights list`.")],
) -> None:
    """Download networks and check their hashes.

    Example: `dicetalk weights fetch blazeface-short-range facemesh`
    """
    from dicetalk import weights

    for name, path in weights.fetch(names).items():
        typer.echo(f"{name}: {path}")


@weights_app.command("verify")
def weights_verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names; all that are here when none is given.")
    ] = None,
) -> None:
    """Hash the files on this machine again; exit code 1 when one is missing or differs."""
    from dicetalk import weights

    statuses = weights.verify(names or [item.weights.name for item in weights.status() if item.path])
    for status in statuses:
        state = "missing" if status.path is None else "verified" if status.verified else "not verified"
        typer.echo(f"{status.weights.name}: {state} {status.path or ''}".rstrip())
    if any(not status.verified for status in statuses):
        raise typer.Exit(1)


@weights_app.command("export")
def weights_export(
    out: Annotated[Path, typer.Option(help="Folder to write the files to.")],
    model: Annotated[Path, typer.Option(help="Folder of the trained model.")] = Path("models/dicetalk"),
) -> None:
    """Write a trained model, priors included, under the file and tensor names of the official release.

    Example: `dicetalk weights export --model models/dicetalk --out release`
    """
    from dicetalk.release.exchange import export_model

    for path in export_model(model, out):
        typer.echo(path)


@weights_app.command("import")
def weights_import(
    source: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Folder with the four official files.")
    ],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    backbone: Annotated[
        Path | None,
        typer.Option(help="Stable Video Diffusion in diffusers' layout; default: the registry's svd-xt."),
    ] = None,
    priors: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder with the official <emotion>.npy (examples/emo)."
        ),
    ] = None,
    params: Annotated[Path, typer.Option(help="Parameter file the networks belong to.")] = Path(
        "profiles/paper.yaml"
    ),
    model: Annotated[
        Path | None,
        typer.Option(
            help="Take all but the networks from this model folder of the same configuration instead."
        ),
    ] = None,
) -> None:
    """Make a model folder of the released DICE-Talk networks, for `generate --model` and for fine-tuning.

    Files are read without running code from them; a missing, unknown or differently shaped tensor or a value
    that is not finite is an error, and then nothing is written. The release has no emotion embedder: give an
    emotion by name.

    Example: `dicetalk weights import checkpoints/DICE-Talk --priors examples/emo --out models/released`
    """
    from dicetalk import weights
    from dicetalk.config import load_params
    from dicetalk.release import exchange

    if model is not None:
        exchange.import_model(source, model, out, priors)
    else:
        backbone = backbone or weights.resolve("svd-xt")
        exchange.import_release(source, backbone, out, load_params(params), priors)
    typer.echo(out)
