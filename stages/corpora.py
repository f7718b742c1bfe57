"""Check section `index` as a whole, and write which corpora there are and which have emotion labels."""

from __future__ import annotations

from dicetalk.config import load_params

from . import run


def main() -> None:
    """Read `index` and write `data/corpora.json`."""
    from dicetalk.data.corpora.table import corpora_of
    from dicetalk.data.in_use import write_in_use

    write_in_use({corpus.name: bool(corpus.classes) for corpus in corpora_of(load_params().index)})


if __name__ == "__main__":
    run(main)
