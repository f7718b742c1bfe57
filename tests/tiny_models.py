"""A random backbone, embedder, bank and priors of a few kilobytes, laid out as the stages leave them."""

from __future__ import annotations

from pathlib import Path

import fake_corpus
import torch
from changes import changed
from diffusers import UNetSpatioTemporalConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dicetalk.config import Params, load_params
from dicetalk.data.dataset import EncodedClips
from dicetalk.models.autoencoder import PatchAutoencoder
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.models.emotion import EmotionModel
from dicetalk.training.priors import class_priors, save_priors

TOKEN_DIM = fake_corpus.IMAGE_DIM


def tiny_params(repository: Path, **training: object) -> Params:
    """Return the demo's parameters with a diffusion training of a few small steps."""
    params = load_params(repository / "profiles/demo.yaml")
    steps = {
        "num_steps": 4,
        "num_processes": 1,
        "batch_size": 4,
        "threads": 1,
        "validate_every_steps": 4,
        "checkpoint_every_steps": 2,
    }
    diffusion = params.train_diffusion
    settings, of_diffusion = changed(diffusion.training, params.compute.train_diffusion, **steps | training)
    compute = params.compute.model_copy(update={"train_diffusion": of_diffusion})
    diffusion = diffusion.model_copy(
        update={
            "num_frames": 4,
            "discrimination_max_sigma": 1e6,  # batches are so small that none might be below a real limit
            "training": settings,
        }
    )
    # The fake corpus brings its own speech features
    encode = params.encode.model_copy(
        update={"speech": params.encode.speech.model_copy(update={"backend": "logmel"})}
    )
    return params.model_copy(update={"train_diffusion": diffusion, "encode": encode, "compute": compute})


def write_project(root: Path) -> Path:
    """Write `data/encoded/` and the `models/` that diffusion training reads."""
    mead = fake_corpus.write_encoded_mead(root / "data/encoded/mead")
    fake_corpus.write_encoded_hdtf(root / "data/encoded/hdtf")
    write_backbone(root / "models/backbone")
    embedder = EmotionEmbedder(
        1, 6, 136, embedding_dim=16, hidden_dim=32, num_layers=1, num_heads=2, clip_frames=10
    )
    embedder.save_pretrained(root / "models/embedder")
    save_priors(class_priors(embedder, EncodedClips([mead], "train")), root / "models/priors.safetensors")
    EmotionModel(16, TOKEN_DIM, 8, 2, 2, 32, classifier_in_channels=32).save_pretrained(root / "models/bank")
    return root


def write_backbone(folder: Path) -> None:
    """Write a two-level UNet, a patch autoencoder with 4 channels and a CLIP tower for 64-px images."""
    torch.manual_seed(0)
    UNetSpatioTemporalConditionModel(
        in_channels=8,
        out_channels=4,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        block_out_channels=(32, 32),
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        layers_per_block=1,
        cross_attention_dim=TOKEN_DIM,
        num_attention_heads=(2, 2),
        num_frames=4,
    ).save_pretrained(folder / "unet")
    PatchAutoencoder(latent_channels=4, channels=(4, 4, 4)).save_pretrained(folder / "vae")
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=64,
            patch_size=16,
            projection_dim=TOKEN_DIM,
        )
    ).save_pretrained(folder / "image_encoder")
