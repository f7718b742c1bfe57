"""Losses of the demo's autoencoder, backbone and speech encoder on inputs whose result is known."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dicetalk.config.recipe import load_pretrain_params
from dicetalk.data.speech import TOKENS_PER_SECOND
from dicetalk.models.autoencoder import DecoderOutput, EncoderOutput, PatchAutoencoder, PointDistribution
from dicetalk.training.autoencoder import AutoencoderObjective, edge_error, to_images
from dicetalk.training.backbone import BackboneObjective, build_image_encoder, build_unet, encode_clips
from dicetalk.training.phonemes import SOUNDS, VOICE_VARIANTS, PhonemeObjective, sound_labels, utterances

# --- autoencoder


def test_images_are_scaled_from_bytes() -> None:
    frames = np.array([[[[0, 51, 255]], [[255, 0, 102]]]], np.uint8)  # one frame, two pixels high
    images = to_images(frames)
    assert images.shape == (1, 3, 2, 1)
    assert images[0, :, :, 0].tolist() == [
        [-1.0, 1.0],
        [pytest.approx(-0.6), -1.0],
        [1.0, pytest.approx(-0.2)],
    ]


def test_edges_are_differences_along_both_axes() -> None:
    first, second = torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2, 3)
    first[0, 0] = torch.tensor([[1.0, 3.0, 3.0], [1.0, 3.0, 4.0]])
    # Along rows 2, 0, 2, 1: 1.25. Along columns 0, 0, 1: a third.
    assert edge_error(first, second).item() == pytest.approx(1.25 + 1 / 3)
    assert edge_error(second, first).item() == pytest.approx(1.25 + 1 / 3)
    assert edge_error(first + 5.0, second).item() == pytest.approx(1.25 + 1 / 3)


class Autoencoder(nn.Module):
    """Latents are 3 everywhere; decoding adds `error` to what was encoded last, plus the latent noise."""

    error = 0.0

    def encode(self, images: Tensor) -> EncoderOutput:
        self.images = images
        return EncoderOutput(latent_dist=PointDistribution(torch.full((len(images), 1), 3.0)))

    def decode(self, latents: Tensor) -> DecoderOutput:
        return DecoderOutput(sample=self.images + self.error + (latents - 3.0).mean())

    def forward(self, images: Tensor) -> DecoderOutput:
        self.encode(images)
        return self.decode(torch.full((1, 1), 3.0))


def autoencoder_objective(noise: float = 0.0) -> AutoencoderObjective:
    clips = np.random.default_rng(0).integers(60, 200, (6, 4, 16, 16, 3)).astype(np.uint8)
    objective = AutoencoderObjective(clips, 2, 7, 4, noise, 0.25)
    objective.autoencoder = Autoencoder()
    return objective


def test_reconstruction_loss_is_pixels_plus_edges_plus_spread() -> None:
    objective = autoencoder_objective()
    objective.autoencoder.error = -0.5
    loss, logged = objective.loss(0, 4)
    # Latents of 3 have a mean square of 9, 8 too many; a constant error has no edges.
    assert logged == {"pixel": pytest.approx(0.5), "edge": pytest.approx(0.0, abs=1e-5)}
    assert loss.item() == pytest.approx(0.5 + 64.0)
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    objective.autoencoder.error = ramp / 4  # along rows by a quarter a pixel
    loss, logged = objective.loss(0, 4)
    assert logged["edge"] == pytest.approx(0.25, rel=1e-4)
    assert loss.item() == pytest.approx(ramp.mean().item() / 4 + 0.25 * 0.25 + 64.0, rel=1e-5)


def test_decoding_has_to_forgive_noise_on_the_latents() -> None:
    objective = autoencoder_objective(noise=0.2)
    torch.manual_seed(0)
    expected = 0.2 * torch.randn(4, 1).mean().abs().item()
    torch.manual_seed(0)
    assert objective.loss(0, 4)[1]["pixel"] == pytest.approx(expected, rel=1e-4)


def test_validation_is_the_peak_signal_to_noise_ratio_of_unseen_clips() -> None:
    objective = autoencoder_objective()
    objective.autoencoder.error = 0.02
    assert objective.validate(0)["psnr_db"] == pytest.approx(10 * math.log10(4 / 0.0004), rel=1e-4)
    objective.autoencoder.error = 9.0  # beyond white, where it is cut off
    images = to_images(objective.validation_clips[:, ::2].reshape(-1, 16, 16, 3))
    expected = (10 * torch.log10(4 / (1 - images).square().mean((1, 2, 3)))).mean().item()
    assert objective.validate(0)["psnr_db"] == pytest.approx(expected, rel=1e-4)
    assert len(objective.train_clips) == 4


def test_training_frames_come_from_all_clips_but_the_last() -> None:
    clips = np.zeros((5, 3, 8, 8, 3), np.uint8)
    clips += (10 * np.arange(5)[:, None] + np.arange(3))[..., None, None, None].astype(np.uint8)
    objective = object.__new__(AutoencoderObjective)
    objective.train_clips = clips[:-2]
    shown = ((objective.frames(np.random.default_rng(0), 300)[:, 0, 0, 0] + 1) * 127.5).round().int()
    assert sorted(set(shown.tolist())) == [0, 1, 2, 10, 11, 12, 20, 21, 22]


def test_linear_start_and_normalised_latents() -> None:
    torch.manual_seed(0)
    # Patches are multiples of one pattern around a grey of 0.1: one component says all.
    pattern = torch.linspace(-1, 1, 3 * 64).reshape(3, 8, 8)
    images = torch.cat([0.1 + scale * pattern for scale in (-0.6, -0.2, 0.1, 0.7)], dim=-1)[None]
    model = PatchAutoencoder(latent_channels=2, channels=(4, 4, 4))
    model.fit_linear(images)
    latents = model.encode(images).latent_dist.mode()
    # Scores along the unit pattern, less their mean, over the fourth root of their variance.
    scores = torch.tensor([-0.6, -0.2, 0.1, 0.7]) * pattern.norm()
    expected = (scores - scores.mean()) / (scores - scores.mean()).square().mean() ** 0.25
    assert torch.allclose(latents[0, 0, 0], expected, rtol=1e-3, atol=1e-3)  # the largest entry is positive
    model.normalise_latents(images)
    normalised = model.encode(images).latent_dist.mode()
    assert normalised.mean((0, 2, 3)).abs().max() < 1e-5
    assert normalised.square().mean().item() == pytest.approx(1.0, rel=1e-5)
    model.normalise_latents(images)  # of what was normalised: nothing changes
    assert torch.allclose(model.encode(images).latent_dist.mode(), normalised, atol=1e-5)
    model.normalise_latents(images + 0.5)
    brighter = model.encode(images + 0.5).latent_dist.mode()
    model.normalise_latents(images + 0.5)  # likewise of what has a mean to take away
    assert torch.allclose(model.encode(images + 0.5).latent_dist.mode(), brighter, atol=1e-5)
    assert model.latent_mean.abs().max() > 0.1 and brighter.mean((0, 2, 3)).abs().max() < 1e-5
    model.normalise_latents(images)
    noisy = model.latent_std * normalised + model.latent_mean
    assert torch.allclose(model.decode(normalised).sample, model.patch_out(noisy), atol=1e-6)


# --- backbone


class Image(nn.Module):
    def forward(self, pixels: Tensor) -> SimpleNamespace:
        self.pixels = pixels
        return SimpleNamespace(image_embeds=pixels.mean((2, 3)))


class Unet(nn.Module):
    """Says a velocity of 0.5 and keeps its inputs."""

    def forward(
        self, sample: Tensor, timestep: Tensor, embedding: Tensor, time_ids: Tensor
    ) -> SimpleNamespace:
        self.seen = sample, timestep, embedding, time_ids
        return SimpleNamespace(sample=torch.full_like(sample[:, :, :1], 0.5))


class BlueChannel:
    """The latent of a frame is its blue value, 0 to 255."""

    def encode(self, images: Tensor) -> EncoderOutput:
        blue = ((images[:, 2:] + 1) * 127.5).mean((2, 3), keepdim=True)
        return EncoderOutput(latent_dist=PointDistribution(blue))


def backbone_objective(**changes) -> BackboneObjective:
    """Four people with two takes of five frames; the latent of clip c and frame f is 10 c + f."""
    clips = np.zeros((8, 5, 2, 2, 3), np.uint8)
    clips[..., 1] = 51
    clips[..., 2] = (10 * np.arange(8)[:, None] + np.arange(5))[..., None, None]
    settings = {"short_window_fraction": 0.0, "sigma_log_mean": math.log(0.75), "sigma_log_std": 1e-9}
    return BackboneObjective(
        clips,
        BlueChannel(),
        num_takes=2,
        num_validation=4,
        num_frames=3,
        seed=1,
        unet=Unet(),
        image_encoder=Image(),
        **(settings | changes),
    )


def test_velocity_error_of_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = backbone_objective()
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.full_like(x, 4.0))
    sigma = torch.tensor([0.75, 0.75])
    clips, start, reference_clips, reference = (np.array(x) for x in ([0, 1], [1, 0], [1, 0], [4, 2]))
    error = objective.velocity_error(clips, start, 2, reference_clips, reference, sigma)
    sample, timestep, embedding, time_ids = objective.unet.seen
    # Frames 1 and 2 of clip 0 and frames 0 and 1 of clip 1, each plus 0.75 * 4, over 1.25.
    assert sample[:, :, 0].flatten(1).tolist() == [
        pytest.approx([4 / 1.25, 5 / 1.25]),
        pytest.approx([13 / 1.25, 14 / 1.25]),
    ]
    assert sample[:, :, 1].flatten(1).tolist() == [[14, 14], [2, 2]]  # the clean reference, over all frames
    assert timestep.tolist() == pytest.approx([0.25 * math.log(0.75)] * 2)
    assert time_ids.tolist() == [[12.5, 8.0, 16.0]] * 2
    velocities = [(4 - 0.75 * clean) / 1.25 for clean in (1, 2, 10, 11)]
    assert error.item() == pytest.approx(np.mean([(v - 0.5) ** 2 for v in velocities]), rel=1e-5)
    # CLIP sees the reference's pixels: red 0, green 51 and blue 14 or 2 of 255.
    assert embedding.shape == (2, 1, 3)
    assert embedding[0, 0].tolist() == pytest.approx(
        [-0.48145466 / 0.26862954, (0.2 - 0.4578275) / 0.26130258, (14 / 255 - 0.40821073) / 0.27577711],
        rel=1e-4,
    )


def test_backbone_batches_show_a_frame_of_the_same_person(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    objective = backbone_objective(sigma_log_mean=1.0, sigma_log_std=0.5)
    monkeypatch.setattr(objective, "velocity_error", lambda *args: drawn.append(args) or torch.zeros(()))
    for step in range(30):
        objective.loss(step, 50)
    clips, start, frames, reference_clips, reference, sigma = zip(*drawn, strict=True)
    clips, reference_clips, start = (np.concatenate(x) for x in (clips, reference_clips, start))
    assert set(frames) == {3} and set(clips) == {0, 1, 2, 3}  # the last four are never trained on
    assert set(start) == {0, 1, 2} and set(np.concatenate(reference)) == {0, 1, 2, 3, 4}
    assert (clips // 2 == reference_clips // 2).all()
    assert (clips != reference_clips).mean() == pytest.approx(0.5, abs=0.05)
    logarithms = torch.cat(sigma).log()
    assert logarithms.mean().item() == pytest.approx(1.0, abs=0.05)
    assert logarithms.std().item() == pytest.approx(0.5, abs=0.03)
    short = backbone_objective(short_window_fraction=1.0)
    monkeypatch.setattr(short, "velocity_error", lambda *args: drawn.append(args) or torch.zeros(()))
    short.loss(0, 4)
    assert drawn[-1][2] == 2 and len(drawn[-1][0]) == 6


def test_backbone_validation_shows_another_take(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    objective = backbone_objective()
    monkeypatch.setattr(objective, "velocity_error", lambda *args: drawn.append(args) or torch.tensor(0.25))
    assert objective.validate(0) == {f"loss_sigma_{sigma}": 0.25 for sigma in ("0.3", "1", "3", "10")}
    clips, start, frames, reference_clips, reference, sigma = drawn[1]
    assert clips.tolist() == [4, 5, 6, 7] and reference_clips.tolist() == [5, 4, 7, 6]
    assert not start.any() and frames == 3 and set(reference) == {4} and sigma.tolist() == [1.0] * 4


def test_networks_of_the_backbone_have_one_level_per_width() -> None:
    unet = build_unet(4, (32, 64, 96), (2, 4, 3), 16, 8, 5)
    assert [type(block).__name__ for block in unet.down_blocks] == [
        "CrossAttnDownBlockSpatioTemporal",
        "CrossAttnDownBlockSpatioTemporal",
        "DownBlockSpatioTemporal",
    ]
    assert [type(block).__name__ for block in unet.up_blocks] == [
        "UpBlockSpatioTemporal",
        "CrossAttnUpBlockSpatioTemporal",
        "CrossAttnUpBlockSpatioTemporal",
    ]
    assert all(len(block.resnets) == 1 for block in unet.down_blocks)
    with (
        torch.no_grad()
    ):  # latents and the reference's latents on the channels; three numbers beside the step
        output = unet(torch.zeros(1, 5, 8, 8, 8), 0.5, torch.zeros(1, 1, 16), torch.ones(1, 3)).sample
        embedding = build_image_encoder(32, 12)(torch.zeros(2, 3, 32, 32)).image_embeds
    assert output.shape == (1, 5, 4, 8, 8) and embedding.shape == (2, 12)
    vision = build_image_encoder(32, 12).vision_model
    assert len(vision.encoder.layers) == 2 and vision.embeddings.num_positions == 1 + (32 // 16) ** 2
    assert (unet.config.sample_size, unet.config.num_frames) == (8, 5)


def test_one_group_trains_everything_of_a_part() -> None:
    backbone = backbone_objective()
    for objective in (backbone, autoencoder_objective()):
        objective.modules = {"a": nn.Linear(2, 2), "b": nn.Linear(1, 1)}
        objective.autoencoder = objective.modules["a"]
        (group,) = objective.parameter_groups(0.25)
        assert group["lr"] == 0.25 and len(group["params"]) == (4 if objective is backbone else 2)


def test_clips_are_encoded_frame_by_frame() -> None:
    class Mean:
        def encode(self, images: Tensor) -> EncoderOutput:
            return EncoderOutput(latent_dist=PointDistribution(images.mean((2, 3), keepdim=True)))

    clips = np.full((2, 3, 4, 4, 3), 255, np.uint8)
    latents = encode_clips(Mean(), clips)
    assert latents.shape == (2, 3, 3, 1, 1) and latents.dtype == torch.float16 and (latents == 1).all()


# --- speech encoder


def test_excerpts_and_accuracies_of_the_speech_encoder() -> None:
    objective = object.__new__(PhonemeObjective)
    objective.settings = SimpleNamespace(training=SimpleNamespace(seed=2), num_validation=1, excerpt_tokens=3)
    objective.log_mels = [np.full((n, 2), 10.0 * n) + np.arange(n)[:, None] for n in (5, 4, 3)]
    objective.labels = [np.array([0, 1, 2, 3, 4]), np.array([0, 1, 1, 2]), np.array([0, 3, 1])]
    logits = torch.zeros(1, 3, len(SOUNDS))
    logits[..., 3] = math.log(5.0)  # it hears sound 3 at all times
    seen = []

    def encoder(log_mels: Tensor) -> tuple[None, Tensor]:
        seen.append(log_mels)
        return None, logits.expand(len(log_mels), -1, -1)

    objective.encoder = encoder
    assert objective.validate(0) == {
        "accuracy": pytest.approx(1 / 3),
        "accuracy_spoken": pytest.approx(1 / 2),
    }
    assert seen[0][0, :, 0].tolist() == [30, 31, 32]
    loss, logged = objective.loss(0, 200)
    starts = [(int(x[0, 0]) // 10, int(x[0, 0]) % 10) for x in seen[1]]
    assert set(starts) == {(5, 0), (5, 1), (5, 2), (4, 0), (4, 1)}  # never the last utterance
    shares = [np.mean(objective.labels[5 - n][s : s + 3] == 3) for n, s in starts]
    assert logged["accuracy"] == pytest.approx(np.mean(shares), rel=1e-5)
    expected = math.log(len(SOUNDS) + 4) - np.mean(shares) * math.log(5.0)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_token_lasts_20_ms() -> None:
    assert TOKENS_PER_SECOND == 50
    assert sound_labels((), 0.0, 3).tolist() == [0, 0, 0]


def test_spoken_sounds_are_heard_where_their_labels_are(repository: Path) -> None:
    settings = load_pretrain_params(repository / "pretrained/demo-backbone/params.yaml").speech
    log_mels, labels = utterances(settings.model_copy(update={"num_utterances": 3}))
    assert len({tuple(sound) for sound in labels}) == 3
    for spectrum, sound in zip(log_mels, labels, strict=True):
        assert len(spectrum) == len(sound) >= settings.excerpt_tokens
        loudness, spoken = spectrum.mean(1), np.flatnonzero(sound)
        first, last = spoken[0], spoken[-1]
        # 0.1 to 0.6 s of silence before and after, then the quietest possible value, -80 dB.
        assert 5 <= first <= 31 and (loudness[: first - 2] < -2.1).all()
        assert (loudness[first : last + 1] > -1.5).mean() > 0.7
        assert (loudness[last + 15 :] < -2.0).all() or len(sound) == settings.excerpt_tokens
    assert len(VOICE_VARIANTS) == len(set(VOICE_VARIANTS)) == 4 + 7  # eSpeak NG's female and male variants
