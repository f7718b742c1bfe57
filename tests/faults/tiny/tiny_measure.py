"""Measuring clip by clip with the real store of what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from stages.tiny_sabotage import done, install

from dicetalk.config import load_params
from dicetalk.data.shards import read_samples
from dicetalk.evaluation.observations import Store
from dicetalk.files import atomic_directory, sha256_file, write_json
from dicetalk.runs.work import stage_work
from stages import run

install()


def main() -> None:
    params = load_params()
    model = sha256_file(Path("models/tiny/model.safetensors"))
    with stage_work("measure", params.compute.resume) as work:
        store, rows = Store(work.folder, model), []
        for sample in read_samples(Path("data/processed/tiny")):
            seen = store.find(sample.clip_id)
            if seen is None:
                done(f"measure {sample.clip_id}", 0.1)
                seen = store.add({"loudness": np.abs(sample.audio()).mean()}, {}, sample.meta, sample.clip_id)
            rows.append({"clip_id": sample.clip_id, "model": model, "loudness": float(seen["loudness"])})
        with atomic_directory(Path("outputs/measured")) as folder:
            pd.DataFrame(rows).to_csv(folder / "per_clip.csv", index=False)
        write_json(Path("metrics/measure.json"), {"loudness": float(np.mean([r["loudness"] for r in rows]))})


if __name__ == "__main__":
    run(main)
