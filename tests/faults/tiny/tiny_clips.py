"""Preprocessing with the real pool, clips and shards; the face is a bright square."""

from __future__ import annotations

from pathlib import Path

from stages.tiny_face import SquareTracker
from stages.tiny_sabotage import done, install

from dicetalk.config import load_params
from dicetalk.data import clip, track
from dicetalk.files import write_json
from dicetalk.runs.edits import unedited
from stages import run

install()  # also in the processes of the pool, which import this module
preprocess_clip = clip.preprocess_clip


def slowly(row, *arguments, **options):
    outcome = preprocess_clip(row, *arguments, **options)
    done(f"clips {row['clip_id']}", 0.2)
    return outcome


track.FaceTracker = SquareTracker
clip.preprocess_clip = slowly


def main() -> None:
    params = load_params()

    from dicetalk.data import preprocess

    index, output = Path("data/index/tiny.parquet"), Path("data/processed/tiny")
    with unedited():
        compute = params.compute
        summary = preprocess.preprocess_index(
            index, output, params.preprocess, compute.preprocess, compute.resume
        )
    shown = ("indexed", "kept", "rejected", "kept_seconds", "reasons")
    write_json(Path("metrics/clips.json"), {name: summary[name] for name in shown})
    preprocess.stop_after_crashes(summary)


if __name__ == "__main__":
    run(main)
