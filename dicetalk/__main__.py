"""`python -m dicetalk` and the `dicetalk` command."""

from __future__ import annotations

import sys

from dicetalk.errors import DicetalkError


def main() -> None:
    """Run the command line; a `DicetalkError` is one red line and exit code 1.

    Its traceback is shown with `--debug`.
    """
    from dicetalk.cli.app import app

    try:
        app(prog_name="dicetalk")
    except DicetalkError as error:
        if "--debug" in sys.argv:
            raise
        from rich.console import Console

        Console(stderr=True, soft_wrap=True).print(
            str(error), style="bold red", markup=False, highlight=False
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
