"""What a plan sizes is what training builds, network by network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fake_corpus
import numpy as np
import pytest
import torch
from torch import nn

from dicetalk.config import load_params
from dicetalk.data.dataset import EncodedClips
from dicetalk.data.encode import load_clip_encoder
from dicetalk.data.shape import encoded_shape, planned_shape
from dicetalk.models.backbones.files.components import component_config, read_widths
from dicetalk.models.build import DataShape, build_embedder, build_emotion_model
from dicetalk.models.unet import DiceTalkUNet
from dicetalk.planning.networks import Backbone, build_networks, find_backbone
from dicetalk.tracking.tracker import Tracker
from dicetalk.training import finetune
from dicetalk.training.diffusion import DiffusionObjective
from dicetalk.training.priors import label_priors, save_priors

DEMO_BACKBONE = "pretrained/demo-backbone/weights"
# Speech layers and channels, and widths of tokens, pose and features. `logmel` is the spectrogram alone,
# `phonemes` adds a network's reading of it, whisper-tiny has an embedding output and four layers of 384.
SIZES = {
    "smoke": ((1, 40), (64, 64, 96)),
    "demo": ((2, 40), (64, 64, 96)),
    "paper": ((5, 384), (1024, 320, 1280)),
}


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize("profile", SIZES)
def test_a_plan_sizes_the_networks_that_training_builds(repository: Path, profile: str) -> None:
    params = load_params(repository / f"profiles/{profile}.yaml")
    (layers, channels), (tokens, pose, features) = SIZES[profile]
    with torch.device("meta"):
        planned = build_networks(params, find_backbone(params)).parts()
    diffusion, bank, prior_dim = (
        params.train_diffusion,
        params.learn_bank,
        params.train_embedder.embedding_dim,
    )

    # Three linear layers and a norm turn a window, a prior or a code into tokens.
    def projection(width: int, hidden: int, num_tokens: int) -> int:
        layers = [(width, hidden), (hidden, hidden), (hidden, num_tokens * tokens)]
        return sum((ins + 1) * outs for ins, outs in layers) + 2 * tokens

    def linear(ins: int, outs: int) -> int:
        return (ins + 1) * outs

    audio = diffusion.audio_projection
    window = audio.window_tokens * layers * channels
    assert count(planned["audio_projection"]) == projection(window, audio.hidden_dim, audio.num_tokens)
    emotion = projection(prior_dim, bank.dim, bank.num_tokens) + projection(
        bank.dim, bank.dim, bank.num_tokens
    )
    emotion += linear(prior_dim, bank.dim) + bank.num_codes * bank.dim + 3 * linear(bank.dim, bank.dim)
    emotion += linear(features, 512) + linear(512, 256) + linear(256, 22)
    assert count(planned["emotion_model"]) == emotion
    widths = list(diffusion.pose_guider_channels)
    guider = 9 * 3 * widths[0] + widths[0] + 9 * widths[-1] * pose + pose
    for narrow, wide in zip(widths, widths[1:], strict=False):
        guider += 9 * narrow * narrow + narrow + 9 * narrow * wide + wide
    assert count(planned["pose_guider"]) == guider
    with torch.device("meta"):
        unet = DiceTalkUNet()
        if profile != "paper":
            config = json.loads((repository / DEMO_BACKBONE / "unet/config.json").read_text())
            unet = DiceTalkUNet.from_config(config)
    assert count(planned["unet"]) == count(unet)


@pytest.mark.parametrize("profile", ["smoke", "demo"])
def test_training_on_clips_as_they_are_encoded_builds_what_was_planned(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    params, models = load_params(repository / f"profiles/{profile}.yaml"), tmp_path / "models"
    shutil.copytree(repository / DEMO_BACKBONE, models / "backbone")

    # 1. A real clip, encoded
    rng, size_px = np.random.default_rng(0), params.preprocess.size_px
    clip = load_clip_encoder(models / "backbone", params.encode).encode(
        rng.integers(0, 256, (10, size_px, size_px, 3), np.uint8),
        rng.normal(0, 0.1, 6400).astype(np.float32),
        rng.normal(8, 3, (10, 68, 2)),
    )
    data = DataShape(*clip["speech"].shape[1:], clip["expression"].shape[1])
    assert planned_shape(params.encode.speech, models / "backbone") == data

    # 2. Clips of its shapes, and what `train_diffusion` makes of them
    monkeypatch.setattr(fake_corpus, "SPEECH_SHAPE", clip["speech"].shape[1:])
    monkeypatch.setattr(fake_corpus, "LATENT_SHAPE", clip["latents"].shape[1:])
    monkeypatch.setattr(fake_corpus, "IMAGE_DIM", clip["image_embeddings"].shape[1])
    mead = fake_corpus.write_encoded_mead(tmp_path / "data/encoded/mead")
    fake_corpus.write_encoded_hdtf(tmp_path / "data/encoded/hdtf")
    assert encoded_shape(EncodedClips([mead])) == data
    embedder = build_embedder(params.train_embedder, data)
    embedder.save_pretrained(models / "embedder")
    save_priors(label_priors(params.train_embedder.embedding_dim), models / "priors.safetensors")
    widths = read_widths(models / "backbone")
    build_emotion_model(params.learn_bank, embedder.config.embedding_dim, widths).save_pretrained(
        models / "bank"
    )

    class Built(Exception):
        pass

    def stop(objective: DiffusionObjective, *_: object) -> None:
        raise Built(objective)

    monkeypatch.setattr(finetune, "train", stop)
    with pytest.raises(Built) as caught:
        finetune.train_diffusion(params, tmp_path, tmp_path / "run", Tracker())
    trained = caught.value.args[0].modules
    planned = build_networks(
        params, Backbone(component_config(models / "backbone", "unet"), models / "backbone")
    )
    assert {name: count(part) for name, part in planned.parts().items()} == {
        name: count(part) for name, part in trained.items()
    }
