"""Check section `index` as a whole, and write which corpora there are and which have emotion labels."""

from __future__ import annotations

from dicetalk.config import load_params
from stages import run


def main() -> None:
    """Read `index` and write `data/corpora.json`."""
    from dicetalk.data.corpora.table import corpora_of
    from dicetalk.data.in_use import write_in_use

    params = load_params()
    emotional = [corpus.name for corpus in corpora_of(params.index) if corpus.classes]
    write_in_use(params.corpora, emotional)


if __name__ == "__main__":
    run(main)
