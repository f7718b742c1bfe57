"""List the clips of one corpus, with labels and split, in `data/index/<set>.parquet`."""

from __future__ import annotations

from pathlib import Path

from dicetalk.compute.launch import chosen_dataset
from dicetalk.config import load_params
from dicetalk.files import write_json

from . import run


def main() -> None:
    """Read `index.<dataset>` and write its table."""
    params = load_params()
    dataset = chosen_dataset(params.corpora, str(__doc__))

    from dicetalk.data.index import build_index

    summary = build_index(dataset, params.index[dataset], Path(f"data/index/{dataset}.parquet"))
    write_json(Path(f"metrics/index-{dataset}.json"), summary)


if __name__ == "__main__":
    run(main)
