"""From backbone, bank, embedder and encoded clips to the saved DICE-Talk pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPImageProcessor

from dicetalk.compute.precision import compute_device
from dicetalk.config import Params
from dicetalk.data.dataset import DiffusionBatches, EncodedClips
from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_directory
from dicetalk.labels import CLASSES
from dicetalk.models.backbone import component_config, load_component
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pipeline import DiceTalkPipeline
from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.projection import AudioProjection
from dicetalk.models.sampling import make_scheduler
from dicetalk.models.unet import DiceTalkUNet
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
    torch.set_num_threads(compute.threads)
    torch.manual_seed(settings.training.seed)
    device = compute_device()

    # Data
    clips = {split: _encoded_clips(params, root, split) for split in ("train", "test")}
    batches = {split: _batches(params, split_clips) for split, split_clips in clips.items()}
    embedder = EmotionEmbedder.from_pretrained(models / "embedder").to(device)
    priors = load_priors(models / "priors.safetensors")

    # Networks
    vae = load_component(models / "backbone", "vae")
    pipeline = DiceTalkPipeline(
        vae=vae,
        image_encoder=load_component(models / "backbone", "image_encoder"),
        unet=DiceTalkUNet.from_svd(load_component(models / "backbone", "unet")),
        scheduler=make_scheduler(),
        audio_projection=_audio_projection(params, clips["train"], models),
        emotion_model=EmotionModel.from_pretrained(models / "bank"),
        pose_guider=_pose_guider(params, models),
        feature_extractor=_feature_extractor(models / "backbone"),
        image_size=params.preprocess.size_px,
        size_multiple=_size_multiple(vae, params, models),
    )
    sampling = ("vae", "image_encoder") if compute.sample_clips else ()
    for name in ("unet", "audio_projection", "emotion_model", "pose_guider", *sampling):
        getattr(pipeline, name).to(device)
    if compute.gradient_checkpointing:
        pipeline.unet.enable_gradient_checkpointing()

    # Training
    class_priors = np.stack([priors[prior_name(*pair)] for pair in CLASSES])
    fps = params.preprocess.fps / settings.frame_stride
    objective = DiffusionObjective(
        unet=pipeline.unet,
        audio_projection=pipeline.audio_projection,
        emotion_model=pipeline.emotion_model,
        pose_guider=pipeline.pose_guider,
        train_batches=batches["train"],
        test_batches=batches["test"],
        clip_priors=(
            clip_priors(params.priors.source, embedder, clips["train"]),
            clip_priors(params.priors.source, embedder, clips["test"]),
        ),
        class_priors=class_priors,
        scaling_factor=vae.config.scaling_factor,
        fps=fps,
        settings=settings,
    )
    unet = pipeline.unet
    units = [*unet.down_blocks, unet.mid_block, *unet.up_blocks] if compute.fully_sharded else []
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
    for name in objective.modules:
        divided = getattr(pipeline, name)
        whole = type(divided).from_config(divided.config)
        whole.load_state_dict(averaged_weights(run_dir, name))
        pipeline.register_modules(**{name: whole})
        setattr(objective, name, whole)


def _encoded_clips(params: Params, root: Path, split: str) -> EncodedClips:
    settings = params.train_diffusion
    min_frames = settings.frame_stride * (settings.num_frames - 1) + 1
    folders = [root / "data/encoded" / name for name in params.corpora]
    return EncodedClips(folders, split, min_frames)


def _batches(params: Params, clips: EncodedClips) -> DiffusionBatches:
    settings = params.train_diffusion
    return DiffusionBatches(
        clips,
        num_frames=settings.num_frames,
        frame_stride=settings.frame_stride,
        window_tokens=settings.audio_projection.window_tokens,
        image_embedding_stride=params.encode.image_embedding_stride,
        size_px=params.preprocess.size_px,
        emotional_fraction=settings.emotional_fraction,
        other_clip_reference_fraction=settings.other_clip_reference_fraction,
        seed=settings.training.seed,
    )


def _audio_projection(params: Params, clips: EncodedClips, models: Path) -> AudioProjection:
    settings = params.train_diffusion.audio_projection
    num_layers, channels = clips.read(0, "speech", 0, 1).shape[1:]
    return AudioProjection(
        window_size=settings.window_tokens,
        num_layers=num_layers,
        channels=channels,
        hidden_dim=settings.hidden_dim,
        num_tokens=settings.num_tokens,
        output_dim=component_config(models / "backbone", "unet")["cross_attention_dim"],
    )


def _pose_guider(params: Params, models: Path) -> PoseGuider:
    channels = params.train_diffusion.pose_guider_channels
    first = component_config(models / "backbone", "unet")["block_out_channels"][0]
    return PoseGuider(conditioning_embedding_channels=first, block_out_channels=tuple(channels))


def _size_multiple(vae: torch.nn.Module, params: Params, models: Path) -> int:
    """Return what image sides must be multiples of; the pose guider must halve as often as the VAE."""
    with torch.no_grad():
        pixels = torch.zeros(1, 3, params.preprocess.size_px, params.preprocess.size_px)
        latent_size = vae.encode(pixels).latent_dist.mode().shape[-1]
    factor = params.preprocess.size_px // latent_size
    halvings = len(params.train_diffusion.pose_guider_channels) - 1
    if factor != 2**halvings:
        raise DicetalkError(
            f"train_diffusion.pose_guider_channels has {halvings + 1} entries and so scales the mask down by "
            f"{2**halvings}, but the autoencoder scales images down by {factor}; the two must be equal."
        )
    levels = len(component_config(models / "backbone", "unet")["block_out_channels"])
    return factor * 2 ** (levels - 1)


def _feature_extractor(backbone: Path) -> CLIPImageProcessor | None:
    folder = backbone / "feature_extractor"
    return CLIPImageProcessor.from_pretrained(folder) if folder.is_dir() else None
