"""Turn the clips of one index into aligned face crops with sound; each is kept or rejected with a reason."""

from __future__ import annotations

from pathlib import Path

from dicetalk.compute.launch import chosen_dataset
from dicetalk.config import load_params
from dicetalk.files import write_json
from dicetalk.runs.edits import unedited

from . import run


def main() -> None:
    """Read `preprocess` and write `data/processed/<dataset>/`."""
    params = load_params()
    dataset = chosen_dataset(params.corpora, str(__doc__))

    from dicetalk.data.preprocess import preprocess_index, stop_after_crashes

    index = Path(f"data/index/{dataset}.parquet")
    output = Path(f"data/processed/{dataset}")
    compute = params.compute
    with unedited():
        summary = preprocess_index(index, output, params.preprocess, compute.preprocess, compute.resume)
    write_json(Path(f"metrics/preprocess-{dataset}.json"), summary)
    stop_after_crashes(summary)


if __name__ == "__main__":
    run(main)
