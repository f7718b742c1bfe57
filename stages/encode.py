"""Encode the clips of one corpus: latents, image embeddings, speech and expression features."""

from __future__ import annotations

from pathlib import Path

from dicetalk.compute.launch import chosen_dataset
from dicetalk.config import load_params
from dicetalk.files import write_json
from dicetalk.runs.work import stage_work

from . import run


def main() -> None:
    """Read `encode` and write `data/encoded/<dataset>/`."""
    params = load_params()
    dataset = chosen_dataset(params.corpora, str(__doc__))

    import torch

    from dicetalk.data.encode import encode_set, load_clip_encoder

    torch.set_num_threads(params.compute.encode.threads)
    processed, output = Path(f"data/processed/{dataset}"), Path(f"data/encoded/{dataset}")
    with stage_work(f"encode@{dataset}", params.compute.resume) as work:
        encoder = load_clip_encoder(Path("models/backbone"), params.encode)
        counts = encode_set(processed, encoder, work.folder, output)
        write_json(Path(f"metrics/encode-{dataset}.json"), counts)


if __name__ == "__main__":
    run(main)
