"""Average the embeddings of the training clips into the emotion priors of mode P."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import load_params
from dicetalk.files import write_json

from . import run


def main() -> None:
    """Read `priors` and write `models/priors.safetensors`."""
    from dicetalk.compute.precision import compute_device
    from dicetalk.data.dataset import EncodedClips
    from dicetalk.data.in_use import emotional_folders
    from dicetalk.models.embedder import EmotionEmbedder
    from dicetalk.training.priors import class_priors, label_priors, prior_metrics, save_priors

    embedder = EmotionEmbedder.from_pretrained("models/embedder").to(compute_device())
    if load_params().priors.source == "label":
        priors = label_priors(embedder.config.embedding_dim)
    else:
        priors = class_priors(embedder, EncodedClips(emotional_folders(Path("data/encoded")), "train"))
    save_priors(priors, Path("models/priors.safetensors"))
    write_json(Path("metrics/priors.json"), prior_metrics(priors))


if __name__ == "__main__":
    run(main)
