"""Write the procedural demo corpora in MEAD's and HDTF's own layouts; nothing when `synthesize` is null."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import load_params
from dicetalk.files import atomic_directory, write_json
from stages import run

OUT = Path("data/synthetic")


def main() -> None:
    """Read `synthesize` and write `data/synthetic/{mead,hdtf}`."""
    params = load_params().synthesize
    if params is None:
        # DVC wants its outputs to exist. They lie apart from real data, which no stage writes to.
        for name in ("mead", "hdtf"):
            with atomic_directory(OUT / name) as folder:
                (folder / "README.txt").write_text("synthesize is null in params.yaml; see index.*.root\n")
        write_json(Path("metrics/synthesize.json"), {"mead": {"clips": 0}, "hdtf": {"videos": 0}})
        return
    from dicetalk.synthetic.corpus import write_hdtf, write_mead

    counts = {"mead": write_mead(OUT / "mead", params), "hdtf": write_hdtf(OUT / "hdtf", params)}
    write_json(Path("metrics/synthesize.json"), counts)


if __name__ == "__main__":
    run(main)
