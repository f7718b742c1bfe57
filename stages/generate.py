"""Generate the videos of the test split with the trained pipeline."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import config_hash, load_params
from dicetalk.files import sha256_file, write_json
from stages import run

MODEL = Path("models/dicetalk")
ENCODED, PROCESSED = Path("data/encoded/mead"), Path("data/processed/mead")
OUTPUT = Path("outputs/generated")


def main() -> None:
    """Read `generate` and write `outputs/generated/`."""
    params = load_params()
    settings = params.generate

    from dicetalk.interpolation import load_interpolator
    from dicetalk.split_generation import example_videos, generate_test_split
    from dicetalk.tracking import stage_run

    inputs = [*sorted(MODEL.rglob("*.safetensors")), ENCODED / "clips.parquet"]
    # Not the settings alone: weights may be absent.
    between = load_interpolator(settings.interpolation).name
    run_dir = Path(f"runs/generate-{config_hash(settings, between, [sha256_file(path) for path in inputs])}")
    with stage_run("generate", params.tracking, settings) as tracker:
        videos = generate_test_split(MODEL, ENCODED, PROCESSED, settings, run_dir, OUTPUT)
        for path in example_videos(OUTPUT):
            tracker.log_image(path)
    write_json(Path("metrics/generate.json"), {"videos": videos})


if __name__ == "__main__":
    run(main)
