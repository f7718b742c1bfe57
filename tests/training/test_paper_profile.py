"""The paper profile's three trainings take two real steps at true widths; few layers, frames and examples.

What memory does not allow here: the UNet has the first two of its four widths, 320 and 640, with one layer
each, and frames of 128 px. `tests/planning` builds the whole one on the meta device. What time does not allow
on a processor that emulates bfloat16: the discrimination curve of a finished training sees two clips.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_corpus
import numpy as np
import pytest
import tiny_models
import torch
from diffusers import UNetSpatioTemporalConditionModel
from safetensors.numpy import load_file

from dicetalk.config import Params, Training, load_params
from dicetalk.data.dataset import EncodedClips
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.planning.networks import WHISPER_CHANNELS, WHISPER_LAYERS
from dicetalk.tracking.tracker import Tracker
from dicetalk.training import discrimination
from dicetalk.training.bank import learn_bank
from dicetalk.training.checkpoint import read_log
from dicetalk.training.embedder import train_embedder
from dicetalk.training.finetune import train_diffusion
from dicetalk.training.priors import class_priors, save_priors

WIDTHS, SIZE_PX, NUM_FRAMES = (320, 640), 128, 2


def two_steps(section: Any, batch_size: int, accumulation: int = 1) -> Any:
    """The section with a training of two optimiser steps; everything else stays the paper's."""
    training: Training = section.training.model_copy(
        update={
            "num_steps": 2,
            "batch_size": batch_size,
            "grad_accumulation_steps": accumulation,
        }
    )
    return section.model_copy(update={"training": training})


@pytest.fixture
def params(repository: Path) -> Params:
    params = load_params(repository / "profiles/paper.yaml")
    diffusion = params.train_diffusion.model_copy(update={"num_frames": NUM_FRAMES})
    quick = {"threads": 1, "log_every_steps": 1}
    stages = {
        "train_embedder": params.compute.train_embedder.model_copy(update=quick),
        "learn_bank": params.compute.learn_bank.model_copy(update=quick),
        "train_diffusion": params.compute.train_diffusion.model_copy(update=quick | {"sample_clips": 1}),
    }
    return params.model_copy(
        update={
            "train_embedder": two_steps(params.train_embedder, batch_size=32),
            "learn_bank": two_steps(params.learn_bank, batch_size=32),
            "train_diffusion": two_steps(diffusion, batch_size=1, accumulation=2),
            "preprocess": params.preprocess.model_copy(update={"size_px": SIZE_PX}),
            "compute": params.compute.model_copy(update=stages),
        }
    )


@pytest.fixture
def root(tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Encoded clips in the paper's shapes and a backbone of its widths."""
    monkeypatch.setattr(fake_corpus, "SPEECH_SHAPE", (WHISPER_LAYERS, WHISPER_CHANNELS))
    monkeypatch.setattr(fake_corpus, "LATENT_SHAPE", (4, SIZE_PX // 8, SIZE_PX // 8))
    monkeypatch.setattr(fake_corpus, "IMAGE_DIM", 1024)
    monkeypatch.setattr(tiny_models, "TOKEN_DIM", 1024)
    monkeypatch.setattr(discrimination, "MAX_CLIPS", 2)
    frames = params.train_embedder.clip_frames + 2
    fake_corpus.write_encoded_mead(tmp_path / "data/encoded/mead", 3, 1, frames)
    fake_corpus.write_encoded_hdtf(tmp_path / "data/encoded/hdtf", 2, frames)
    tiny_models.write_backbone(tmp_path / "models/backbone")
    UNetSpatioTemporalConditionModel(
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        block_out_channels=WIDTHS,
        num_attention_heads=(5, 10),
        layers_per_block=1,
        num_frames=NUM_FRAMES,
    ).save_pretrained(tmp_path / "models/backbone/unet")
    return tmp_path


def assert_two_steps(run_dir: Path) -> None:
    losses = {line["step"]: line["loss"] for line in read_log(run_dir) if "loss" in line}
    assert losses.keys() == {1, 2} and np.isfinite(list(losses.values())).all()


@pytest.mark.slow
def test_two_optimiser_steps_of_each_training(params: Params, root: Path) -> None:
    mead, models = root / "data/encoded/mead", root / "models"
    train_embedder(
        [mead],
        params.train_embedder,
        params.compute.train_embedder,
        root / "e",
        models / "embedder",
        Tracker(),
    )
    assert_two_steps(root / "e")
    embedder = EmotionEmbedder.from_pretrained(models / "embedder")
    assert embedder.config.embedding_dim == 256 and embedder.config.hidden_dim == 512

    priors = class_priors(embedder, EncodedClips([mead], "train"))
    save_priors(priors, models / "priors.safetensors")
    learn_bank(
        encoded=[mead],
        embedder=embedder,
        priors=priors,
        prior_source=params.priors.source,
        backbone=models / "backbone",
        settings=params.learn_bank,
        compute=params.compute.learn_bank,
        run_dir=root / "b",
        output=models / "bank",
        tracker=Tracker(),
    )
    assert_two_steps(root / "b")

    metrics = train_diffusion(params, root, root / "d", Tracker())
    assert_two_steps(root / "d")
    assert metrics["parameters"]["unet"] > 140e6
    trained = load_file(models / "diffusion/unet/diffusion_pytorch_model.safetensors")
    untrained = load_file(models / "backbone/unet/diffusion_pytorch_model.safetensors")
    assert any((trained[name] != untrained[name]).any() for name in untrained)
    assert all(np.isfinite(weight).all() for weight in trained.values())
    assert len(list((root / "d/samples/step-000002").glob("*.mp4"))) == 1
    assert torch.get_num_threads() == 1
