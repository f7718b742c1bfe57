"""Generate the videos of the test split with the trained pipeline."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import config_hash, load_params
from dicetalk.files import sha256_file, write_json
from stages import run

MODEL = Path("models/dicetalk")
ENCODED, PROCESSED = Path("data/encoded/mead"), Path("data/processed/mead")


def main() -> None:
    """Read `generate` and write `outputs/generated/`."""
    settings = load_params().generate

    from dicetalk.generation import load_model
    from dicetalk.split_generation import generate_test_split

    inputs = [*sorted(MODEL.rglob("*.safetensors")), ENCODED / "clips.parquet"]
    run_dir = Path(f"runs/generate-{config_hash(settings, [sha256_file(path) for path in inputs])}")
    videos = generate_test_split(
        load_model(MODEL), ENCODED, PROCESSED, settings, run_dir, Path("outputs/generated")
    )
    write_json(Path("metrics/generate.json"), {"videos": videos})


if __name__ == "__main__":
    run(main)
