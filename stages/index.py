"""List the clips of one corpus, with labels and split, in `data/index/<set>.parquet`."""

from __future__ import annotations

import argparse
from pathlib import Path

from dicetalk.config import load_params
from dicetalk.files import write_json
from stages import run


def main() -> None:
    """Read `index.<dataset>` and write its table."""
    index = load_params().index
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=index.names(), required=True)
    dataset = parser.parse_args().dataset

    from dicetalk.data.index import build_index

    summary = build_index(dataset, getattr(index, dataset), Path(f"data/index/{dataset}.parquet"))
    write_json(Path(f"metrics/index-{dataset}.json"), summary)


if __name__ == "__main__":
    run(main)
