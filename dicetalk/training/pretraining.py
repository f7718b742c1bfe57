"""The demo backbone's recipe, part by part; each reads and writes files below one working folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dicetalk.compute.precision import fixed_threads
from dicetalk.config import Training
from dicetalk.config.recipe import PretrainParams
from dicetalk.files import atomic_directory, atomic_path, write_json
from dicetalk.models.autoencoder import PatchAutoencoder
from dicetalk.models.phonemes import PhonemeEncoder
from dicetalk.training.autoencoder import AutoencoderObjective
from dicetalk.training.backbone import BackboneObjective, build_image_encoder, build_unet
from dicetalk.training.checkpoint import read_log, write_curves
from dicetalk.training.loop import Objective, train
from dicetalk.training.phonemes import PhonemeObjective

MODEL_INDEX = {
    "_class_name": "StableVideoDiffusionPipeline",
    "vae": ["dicetalk.models.autoencoder", "PatchAutoencoder"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
}


def run_clips(params: PretrainParams, work: Path) -> None:
    """Render the clips to `clips.npy`, see `render_pool`."""
    from dicetalk.synthetic.pool import render_pool

    frames = render_pool(params.clips, params.compute.workers)
    with atomic_path(work / "clips.npy") as temporary:
        np.save(temporary, frames)


@fixed_threads()
def run_speech(params: PretrainParams, work: Path, run_dir: Path) -> None:
    """Train the speech encoder and save it to `speech_encoder/`."""
    objective = PhonemeObjective(params.speech)
    metrics = train(
        objective, params.speech.training, params.compute.training, run_dir, label="speech encoder"
    )
    _save(work / "speech_encoder", objective.encoder, run_dir, metrics)


@fixed_threads()
def run_autoencoder(params: PretrainParams, work: Path, run_dir: Path) -> None:
    """Train the autoencoder and save it to `vae/`."""
    objective = autoencoder_objective(params, np.load(work / "clips.npy", mmap_mode="r"))
    metrics = train(
        objective, params.autoencoder.training, params.compute.training, run_dir, label="autoencoder"
    )
    # Training moved the latents a little away from zero mean and unit variance.
    objective.autoencoder.normalise_latents(objective.frames(np.random.default_rng(0), 2048))
    _save(work / "vae", objective.autoencoder, run_dir, metrics)


def autoencoder_objective(params: PretrainParams, clips: np.ndarray) -> AutoencoderObjective:
    """Return the autoencoder's objective on rendered `clips`."""
    settings = params.autoencoder
    return AutoencoderObjective(
        clips,
        params.clips.num_validation,
        settings.training.seed,
        settings.latent_channels,
        settings.latent_noise,
        settings.edge_weight,
    )


@fixed_threads()
def run_unet(params: PretrainParams, work: Path, run_dir: Path) -> None:
    """Train the UNet and the image encoder on the autoencoder's latents and save them."""
    autoencoder = PatchAutoencoder.from_pretrained(work / "vae").eval()
    objective = backbone_objective(params, np.load(work / "clips.npy", mmap_mode="r"), autoencoder)
    metrics = train(objective, params.unet.training, params.compute.training, run_dir, label="backbone")
    _save(work / "unet", objective.unet, run_dir, metrics)
    _save(work / "image_encoder", objective.image_encoder, run_dir, metrics)


def backbone_objective(
    params: PretrainParams, clips: np.ndarray, autoencoder: PatchAutoencoder
) -> BackboneObjective:
    """Return the UNet's objective on rendered `clips`."""
    settings = params.unet
    torch.manual_seed(settings.training.seed)
    unet = build_unet(
        params.autoencoder.latent_channels,
        tuple(settings.block_out_channels),
        tuple(settings.attention_heads),
        settings.cross_attention_dim,
        params.clips.size_px // PatchAutoencoder.patch_size,
        settings.num_frames,
    )
    return BackboneObjective(
        clips,
        autoencoder,
        params.clips.num_takes,
        params.clips.num_validation,
        settings.num_frames,
        settings.short_window_fraction,
        settings.sigma_log_mean,
        settings.sigma_log_std,
        settings.training.seed,
        unet,
        build_image_encoder(params.clips.size_px, settings.cross_attention_dim),
    )


def run_export(params: PretrainParams, work: Path) -> None:
    """Write the parts in half precision to `weights/`, in the layout of a diffusers pipeline."""
    from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionModelWithProjection

    with atomic_directory(Path("weights")) as folder:
        PhonemeEncoder.from_pretrained(work / "speech_encoder").half().save_pretrained(
            folder / "speech_encoder"
        )
        PatchAutoencoder.from_pretrained(work / "vae").half().save_pretrained(folder / "vae")
        UNetSpatioTemporalConditionModel.from_pretrained(work / "unet").half().save_pretrained(
            folder / "unet"
        )
        CLIPVisionModelWithProjection.from_pretrained(work / "image_encoder").half().save_pretrained(
            folder / "image_encoder"
        )
        # SVD's scheduler settings; the noise range in use is a parameter of generation.
        EulerDiscreteScheduler(
            prediction_type="v_prediction",
            timestep_type="continuous",
            timestep_spacing="leading",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
        ).save_pretrained(folder / "scheduler")
        write_json(folder / "model_index.json", MODEL_INDEX)
        write_json(folder / "first_steps.json", first_steps(params))


@fixed_threads()
def first_steps(
    params: PretrainParams, num_people: int = 40, num_utterances: int = 80, num_steps: int = 2
) -> dict[str, list[float]]:
    """Return the losses of the recipe's first steps on its first clips: a fingerprint that shows changes.

    Args:
        params: the recipe; clips, seeds, sizes and batches are its own.
        num_people: how many people to render; validation clips are the last of them.
        num_utterances: how many utterances to speak, likewise.
        num_steps: optimiser steps of each part.
    """
    from dicetalk.synthetic.pool import render_pool

    frames = render_pool(params.clips.model_copy(update={"num_people": num_people}), workers=1)
    autoencoder = autoencoder_objective(params, frames)
    speech = PhonemeObjective(params.speech.model_copy(update={"num_utterances": num_utterances}))
    losses = {
        "speech": _losses(speech, params.speech.training, params, num_steps),
        "autoencoder": _losses(autoencoder, params.autoencoder.training, params, num_steps),
    }
    unet = backbone_objective(params, frames, autoencoder.autoencoder.eval())
    return losses | {"unet": _losses(unet, params.unet.training, params, num_steps)}


def _losses(objective: Objective, settings: Training, params: PretrainParams, num_steps: int) -> list[float]:
    """Train for a few steps in a folder of their own and return the logged losses."""
    short = settings.model_copy(update={"num_steps": num_steps, "mixed_precision": "no"})
    compute = params.compute.training.model_copy(update={"log_every_steps": 1, "threads": 1})
    with tempfile.TemporaryDirectory() as folder:
        train(objective, short, compute, Path(folder), label="first steps")
        return [line["loss"] for line in read_log(Path(folder)) if "loss" in line]


def _save(folder: Path, module: nn.Module, run_dir: Path, metrics: dict[str, float]) -> None:
    with atomic_directory(folder) as temporary:
        module.save_pretrained(temporary)
        write_curves(run_dir, temporary / "curves.csv")
        write_json(temporary / "metrics.json", metrics)
