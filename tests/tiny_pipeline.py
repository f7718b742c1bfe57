"""A small pipeline of random weights."""

from __future__ import annotations

import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dicetalk.models.autoencoder import PatchAutoencoder
from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pipeline import DiceTalkPipeline
from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.projection import AudioProjection
from dicetalk.models.sampling import make_scheduler
from dicetalk.models.unet import DiceTalkUNet

UNET_CONFIG = {
    "in_channels": 16,
    "out_channels": 8,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "block_out_channels": (32, 32),
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "num_attention_heads": (2, 2),
    "num_frames": 4,
}


def make_pipeline() -> DiceTalkPipeline:
    """A pipeline in the demo's shape: patch autoencoder, 32 px, windows of 4 frames, every weight random."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=16,
    )
    pipeline = DiceTalkPipeline(
        vae=PatchAutoencoder(latent_channels=8, channels=(4, 4, 4)),
        image_encoder=CLIPVisionModelWithProjection(vision).eval(),
        unet=DiceTalkUNet(**UNET_CONFIG).eval(),
        scheduler=make_scheduler(sigma_max=80.0),
        audio_projection=AudioProjection(10, 1, 6, 16, 3, 16).eval(),
        emotion_model=EmotionModel(12, 16, 5, 2, 2, 16, classifier_in_channels=32).eval(),
        pose_guider=PoseGuider(32, 3, (4, 4, 4, 4)).eval(),
        image_size=32,
        size_multiple=16,
    )
    torch.nn.init.normal_(pipeline.pose_guider.conv_out.weight)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
