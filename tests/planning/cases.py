"""Small trainings of different shape, for tests of the plan against real runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from changes import changed

from dicetalk.config import Params, load_params
from dicetalk.planning.networks import Backbone

CASES: dict[str, dict[str, Any]] = {
    "demo": {"widths": (64, 96), "heads": (2, 3), "size_px": 64, "frames": 8, "batch": 12},
    "short_windows": {
        "widths": (64, 96),
        "heads": (2, 3),
        "size_px": 64,
        "frames": 8,
        "batch": 12,
        "short_windows": 1.0,
    },
    "checkpointed": {
        "widths": (64, 96),
        "heads": (2, 3),
        "size_px": 96,
        "frames": 12,
        "batch": 8,
        "checkpointing": True,
    },
    "wide": {"widths": (128, 256), "heads": (4, 4), "size_px": 96, "frames": 6, "batch": 3},
    "three_levels": {
        "widths": (64, 96, 128),
        "heads": (2, 2, 4),
        "size_px": 128,
        "frames": 6,
        "batch": 4,
        "accumulation": 2,
    },
}
TINY = {
    "widths": (32, 32),
    "heads": (1, 1),
    "size_px": 64,
    "frames": 2,
    "batch": 1,
}  # loads libraries, no more


def case(repository: Path, name: str) -> tuple[Params, Backbone]:
    """Parameters and backbone of a case: the demo's, with a UNet of another configuration."""
    values, params = {"tiny": TINY, **CASES}[name], load_params(repository / "profiles/demo.yaml")
    training, compute = changed(
        params.train_diffusion.training,
        params.compute.train_diffusion,
        num_steps=2,
        batch_size=values["batch"],
        num_processes=1,
        threads=1,
        mixed_precision="no",
        gradient_checkpointing=values.get("checkpointing", False),
        grad_accumulation_steps=values.get("accumulation", 1),
        validate_every_steps=2,
        checkpoint_every_steps=2,
    )
    diffusion = params.train_diffusion.model_copy(
        update={
            "training": training,
            "num_frames": values["frames"],
            "short_window_fraction": values.get("short_windows", 0.0),
        }
    )
    preprocess = params.preprocess.model_copy(update={"size_px": values["size_px"]})
    compute_all = params.compute.model_copy(update={"train_diffusion": compute})
    params = params.model_copy(
        update={"train_diffusion": diffusion, "preprocess": preprocess, "compute": compute_all}
    )
    levels = len(values["widths"])
    config = {
        "in_channels": 32,
        "out_channels": 16,
        "down_block_types": ["CrossAttnDownBlockSpatioTemporal"] * (levels - 1) + ["DownBlockSpatioTemporal"],
        "up_block_types": ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * (levels - 1),
        "block_out_channels": values["widths"],
        "num_attention_heads": values["heads"],
        "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 96,
        "layers_per_block": 1,
        "cross_attention_dim": 64,
        "num_frames": values["frames"],
    }
    return params, Backbone(config, repository / "pretrained/demo-backbone/weights")
