"""Put the pretrained video model that training starts from at `models/backbone/`."""

from __future__ import annotations

import shutil
from pathlib import Path

from dicetalk import weights
from dicetalk.config import load_params
from dicetalk.files import atomic_directory, sha256_file, write_json

from . import run

OUT = Path("models/backbone")


def main() -> None:
    """Read `backbone`, fetch and verify the weights, and copy them."""
    name = load_params().backbone.weights
    entry, source = weights.get(name), weights.resolve(name)
    with atomic_directory(OUT) as folder:
        for relative in entry.files:
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / relative, folder / relative)
    digests = {relative: sha256_file(OUT / relative) for relative in sorted(entry.files)}
    write_json(Path("metrics/backbone.json"), {"weights": name, "licence": entry.licence, "sha256": digests})


if __name__ == "__main__":
    run(main)
