"""From backbone, bank, embedder and encoded clips to the saved DICE-Talk pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import CLIPImageProcessor

from dicetalk.compute.precision import compute_device
from dicetalk.config import Params, TrainDiffusion
from dicetalk.data.dataset import DiffusionBatches, EncodedClips
from dicetalk.data.shape import encoded_shape
from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_directory
from dicetalk.labels import CLASSES
from dicetalk.models.backbones.denoisers.table import load_denoiser
from dicetalk.models.backbones.files.base import Codec
from dicetalk.models.backbones.files.components import load_codec, load_component
from dicetalk.models.build import build_audio_projection, build_pose_guider
from dicetalk.models.conditions.table import build_further
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pipeline import DiceTalkPipeline
from dicetalk.tracking.tracker import Tracker
from dicetalk.training.checkpoint import averaged_weights, write_curves
from dicetalk.training.diffusion import SHORT_WINDOW_FRAMES, DiffusionObjective
from dicetalk.training.discrimination import discrimination_by_noise
from dicetalk.training.loop import train
from dicetalk.training.parallel import process_index
from dicetalk.training.priors import clip_priors, load_priors, prior_name
from dicetalk.training.samples import SampleVideos
from dicetalk.training.timings import take_timings


def train_diffusion(params: Params, root: Path, run_dir: Path, tracker: Tracker) -> dict[str, Any]:
    """Fine-tune the backbone and save the pipeline to `models/diffusion/`.

    Args:
        params: all parameters.
        root: folder of `data/` and `models/`.
        run_dir: folder of checkpoints.
        tracker: receives the curves.

    Returns:
        The stage's metrics; empty on all processes but the main one, which saves the results.
    """
    settings, compute, models = params.train_diffusion, params.compute.train_diffusion, root / "models"
    size_px, source = params.preprocess.size_px, params.priors.source
    fps = params.preprocess.fps / settings.frame_stride
    folders = [root / "data/encoded" / name for name in params.corpora]
    embedding_stride = params.encode.image_embedding_stride
    torch.set_num_threads(compute.threads)
    torch.manual_seed(settings.training.seed)
    device = compute_device()

    # Data
    clips = {split: _encoded_clips(settings, folders, split) for split in ("train", "test")}
    batches = {
        split: _batches(settings, split_clips, embedding_stride, size_px)
        for split, split_clips in clips.items()
    }
    embedder = EmotionEmbedder.from_pretrained(models / "embedder").to(device)
    priors = load_priors(models / "priors.safetensors")

    # Networks
    backbone = models / "backbone"
    codec = load_codec(backbone)
    image_encoder = load_component(backbone, "image_encoder")
    denoiser = load_denoiser(backbone)
    conditioners: dict[str, nn.Module] = {
        "audio_projection": build_audio_projection(
            settings.audio_projection, encoded_shape(clips["train"]), denoiser.widths
        ),
        "emotion_model": EmotionModel.from_pretrained(models / "bank"),
        "pose_guider": build_pose_guider(settings.pose_guider_channels, denoiser.widths),
        **build_further(denoiser.widths),
    }
    geometry = denoiser.geometry(space_factor(codec, size_px, len(settings.pose_guider_channels)))
    if geometry.time != 1:
        raise DicetalkError(
            f"{backbone} has latents of {geometry.time} video frames each; training takes one of 1 so far."
        )
    pipeline = DiceTalkPipeline(
        vae=codec.autoencoder,
        image_encoder=image_encoder,
        unet=denoiser.network,
        scheduler=denoiser.noise.scheduler(),
        **conditioners,
        feature_extractor=_feature_extractor(backbone),
        image_size=size_px,
        size_multiple=geometry.size_multiple,
    )
    trained = ("unet", *conditioners)
    for name in (*trained, "vae", "image_encoder") if compute.sample_clips else trained:
        getattr(pipeline, name).to(device)
    if compute.gradient_checkpointing:
        denoiser.network.enable_gradient_checkpointing()

    # Training
    class_priors = np.stack([priors[prior_name(*pair)] for pair in CLASSES])
    objective = DiffusionObjective(
        denoiser=denoiser,
        conditioners=conditioners,
        train_batches=batches["train"],
        test_batches=batches["test"],
        clip_priors=(
            clip_priors(source, embedder, clips["train"]),
            clip_priors(source, embedder, clips["test"]),
        ),
        class_priors=class_priors,
        portrait=codec.portrait,
        fps=fps,
        settings=settings,
    )
    units = denoiser.blocks() if compute.fully_sharded else []
    write_samples = None
    if compute.sample_clips:
        write_samples = SampleVideos(
            pipeline,
            batches["test"],
            class_priors,
            fps,
            settings.training.mixed_precision,
            params.generate,
            compute.sample_clips,
        ).write
    metrics = train(
        objective, settings.training, compute, run_dir, tracker, "train_diffusion", units, write_samples
    )
    if process_index() > 0:
        return {}
    if compute.fully_sharded:
        _replace_divided_modules(pipeline, objective, run_dir)
    metrics = take_timings(metrics, run_dir, tracker)
    short_windows = settings.training.batch_size * settings.num_frames // SHORT_WINDOW_FRAMES
    discrimination = discrimination_by_noise(objective, short_windows)

    # Results
    with atomic_directory(models / "diffusion") as folder:
        pipeline.to("cpu").save_pretrained(folder)
        write_curves(run_dir, folder / "curves.csv")
    parameters = {
        name: sum(p.numel() for p in module.parameters()) for name, module in objective.modules.items()
    }
    return {
        "training": metrics,
        "discrimination": discrimination,
        "train_clips": len(clips["train"]),
        "parameters": parameters,
    }


def _replace_divided_modules(
    pipeline: DiceTalkPipeline, objective: DiffusionObjective, run_dir: Path
) -> None:
    """Put whole modules in place of those of which this process has a part."""
    for name, divided in list(objective.modules.items()):
        whole = type(divided).from_config(divided.config)
        whole.load_state_dict(averaged_weights(run_dir, name))
        pipeline.register_modules(**{name: whole})
        objective.replace(name, whole)


def _encoded_clips(settings: TrainDiffusion, folders: list[Path], split: str) -> EncodedClips:
    """Return the clips that are as long as a window."""
    return EncodedClips(folders, split, settings.frame_stride * (settings.num_frames - 1) + 1)


def _batches(
    settings: TrainDiffusion, clips: EncodedClips, image_embedding_stride: int, size_px: int
) -> DiffusionBatches:
    return DiffusionBatches(
        clips,
        num_frames=settings.num_frames,
        frame_stride=settings.frame_stride,
        window_tokens=settings.audio_projection.window_tokens,
        image_embedding_stride=image_embedding_stride,
        size_px=size_px,
        emotional_fraction=settings.emotional_fraction,
        other_clip_reference_fraction=settings.other_clip_reference_fraction,
        seed=settings.training.seed,
    )


def space_factor(codec: Codec, size_px: int, num_pose_channels: int) -> int:
    """Return how many pixels a latent spans, which the pose guider must halve masks by.

    Raises:
        DicetalkError: when it does not.
    """
    with torch.no_grad():
        factor = size_px // codec.encode(torch.zeros(1, 3, size_px, size_px)).shape[-1]
    if factor != 2 ** (num_pose_channels - 1):
        raise DicetalkError(
            f"train_diffusion.pose_guider_channels has {num_pose_channels} entries and so scales the mask "
            f"down by {2 ** (num_pose_channels - 1)}, but the autoencoder scales images down by {factor}; "
            "the two must be equal."
        )
    return factor


def _feature_extractor(backbone: Path) -> CLIPImageProcessor | None:
    folder = backbone / "feature_extractor"
    return CLIPImageProcessor.from_pretrained(folder) if folder.is_dir() else None
