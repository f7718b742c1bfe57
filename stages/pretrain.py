"""Pretrain the demo backbone, one part at a time: `python -m stages.pretrain PART`.

Runs in `pretrained/demo-backbone/`, whose `dvc.yaml` and `params.yaml` are the recipe.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dicetalk.config.recipe import load_pretrain_params
from dicetalk.runs.work import stage_work

from . import run

TRAINED = ("speech", "autoencoder", "unet")


def main() -> None:
    """Run the part named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["clips", "speech", "autoencoder", "unet", "export"])
    part = parser.parse_args().part
    params = load_pretrain_params(Path("params.yaml"))
    from dicetalk.training import pretraining

    do = getattr(pretraining, f"run_{part}")
    if part not in TRAINED:
        do(params, Path("work"))
        return
    with stage_work(part, "stop") as work:
        do(params, Path("work"), work.folder)


if __name__ == "__main__":
    run(main)
