"""Generate the videos of the test split with the trained pipeline."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import load_params
from dicetalk.files import write_json
from dicetalk.runs.work import stage_work

from . import run

MODEL, OUTPUT = Path("models/dicetalk"), Path("outputs/generated")


def main() -> None:
    """Read `generate` and write `outputs/generated/`."""
    params = load_params()
    settings, compute = params.generate, params.compute.generate

    from dicetalk.data.in_use import emotional_folders
    from dicetalk.generation.interpolation import load_interpolator
    from dicetalk.generation.split import example_videos, generate_test_split
    from dicetalk.tracking.runs import stage_run

    between = load_interpolator(settings.interpolation).name  # another one where weights are absent
    with (
        stage_work("generate", params.compute.resume, [between]) as work,
        stage_run("generate", params.tracking, settings, work.tags()) as tracker,
    ):
        encoded, processed = (emotional_folders(Path("data") / what) for what in ("encoded", "processed"))
        videos = generate_test_split(MODEL, encoded, processed, settings, compute, work.folder, OUTPUT)
        for path in example_videos(OUTPUT):
            tracker.log_image(path)
        write_json(Path("metrics/generate.json"), {"videos": videos})


if __name__ == "__main__":
    run(main)
