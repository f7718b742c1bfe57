"""Encode the clips of one corpus: latents, image embeddings, speech and expression features."""

from __future__ import annotations

import argparse
from pathlib import Path

from dicetalk.config import config_hash, load_params
from dicetalk.files import sha256_file, write_json
from stages import run

BACKBONE = Path("models/backbone")


def main() -> None:
    """Read `encode` and write `data/encoded/<dataset>/`."""
    params = load_params()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=params.index.names(), required=True)
    dataset = parser.parse_args().dataset
    settings = params.encode

    import torch

    from dicetalk.data.encode import encode_set, load_clip_encoder

    torch.set_num_threads(settings.threads)
    processed = Path(f"data/processed/{dataset}")
    weights = [sha256_file(path) for path in sorted(BACKBONE.rglob("*.safetensors"))]
    key = config_hash(settings, weights, sha256_file(processed / "kept.parquet"))
    encoder = load_clip_encoder(BACKBONE, settings)
    run_dir, output = Path(f"runs/encode-{dataset}-{key}"), Path(f"data/encoded/{dataset}")
    counts = encode_set(processed, encoder, run_dir, output)
    write_json(Path(f"metrics/encode-{dataset}.json"), counts)


if __name__ == "__main__":
    run(main)
