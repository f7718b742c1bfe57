"""Write the procedural demo corpora in MEAD's and HDTF's layouts; empty ones when `synthesize` is null."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import load_params
from dicetalk.files import atomic_directory, write_json

from . import run

# Apart from where real data lies, because DVC deletes a stage's outputs before the stage runs.
MEAD, HDTF = Path("data/synthetic/mead"), Path("data/synthetic/hdtf")


def main() -> None:
    """Read `synthesize` and write `data/synthetic/{mead,hdtf}`."""
    loaded = load_params()
    params, workers = loaded.synthesize, loaded.compute.synthesize.workers

    from dicetalk.synthetic.corpus import MARKER, write_hdtf, write_mead

    if params is None:
        for folder in (MEAD, HDTF):
            with atomic_directory(folder) as empty:
                (empty / MARKER).write_text("Nothing: synthesize is null in params.yaml; see index.*.root.\n")
        counts: dict[str, dict[str, int]] = {}
    else:
        counts = {"mead": write_mead(MEAD, params, workers), "hdtf": write_hdtf(HDTF, params, workers)}
    write_json(Path("metrics/synthesize.json"), counts)


if __name__ == "__main__":
    run(main)
