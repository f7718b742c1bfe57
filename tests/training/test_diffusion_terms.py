"""Every term of the diffusion loss and of its validation has the value worked out by hand.

Networks are stand-ins that answer with known numbers. One noise level makes the arithmetic short: at sigma
0.75 the preconditioning scale `sqrt(sigma^2 + 1)` is 1.25. With clean latents of 2 and noise of 4 the noisy
latent is 2 + 0.75 * 4 = 5, the network sees 5 / 1.25 = 4, and the velocity to predict is
(4 - 0.75 * 2) / 1.25 = 2.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dicetalk.config import ConditionDropout, TrainDiffusion, load_params
from dicetalk.data.dataset import DiffusionBatch
from dicetalk.labels import CLASSES
from dicetalk.models.backbones.denoisers.svd import SvdDenoiser
from dicetalk.training import diffusion
from dicetalk.training.diffusion import DiffusionObjective, Kept

SIGMA, CLEAN, NOISE = 0.75, 2.0, 4.0
FRAMES, CHANNELS, SIDE, SIZE_PX = 4, 2, 4, 8
SCALING_FACTOR, FPS = 0.5, 12.5
TOLERANCE = {"rel": 1e-5}


class Unet(nn.Module):
    """Predicts `velocity`, plus `lost_audio` and `lost_emotion` where all tokens of a sample are zero."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.stock, self.adapter = nn.Linear(1, 1), nn.Linear(1, 1)
        self.attention = SimpleNamespace(to_k=nn.Linear(1, 1))
        self.velocity, self.lost_audio, self.lost_emotion = 0.5, 0.0, 0.0
        self.seen: list[dict[str, Tensor]] = []

    def named_cross_attentions(self) -> list[tuple[str, Any]]:
        return [("attn2", self.attention)]

    def adapter_parameters(self) -> list[nn.Parameter]:
        return list(self.adapter.parameters())

    def forward(self, **inputs: Tensor) -> SimpleNamespace:
        self.seen.append(inputs)
        sample = torch.full_like(inputs["sample"][:, :, :CHANNELS], self.velocity)
        for name, loss in (("audio_tokens", self.lost_audio), ("emotion_tokens", self.lost_emotion)):
            absent = (inputs[name].flatten(1) == 0).all(1).float()
            sample = sample + loss * absent[:, None, None, None, None]
        batch, frames = sample.shape[:2]
        # One frame says 0 and the last one says what the mean over frames has to be, times their number.
        features = torch.zeros(batch, frames, len(CLASSES), 1, 1)
        features[:, -1, 3] = frames * math.log(7.0)
        return SimpleNamespace(sample=sample, features=features)


class Emotion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(use_bank=True)
        self.codebook, self.free = nn.Linear(1, 1), nn.Linear(1, 1)
        self.classifier = lambda features: features.flatten(1)

    def forward(self, priors: Tensor) -> SimpleNamespace:
        assert priors.ndim == 3 and priors.shape[1] == 1
        return SimpleNamespace(tokens=priors[:, :, None])


class Windows(nn.Module):
    """Passes windows of speech, or masks, on as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, values: Tensor) -> Tensor:
        return values


class Batches:
    def __init__(self, classes: list[int]) -> None:
        self.classes = classes
        self.drawn: list[tuple] = []
        self.mouth_masks = torch.ones(len(classes), 1, SIZE_PX, SIZE_PX)

    def draw(self, step: int, batch_size: int, num_frames: int | None = None, part: slice = slice(None)):
        self.drawn.append((step, batch_size, num_frames))
        rows = np.resize(np.arange(len(self.classes)), batch_size)[part]
        count, frames = len(rows), num_frames or FRAMES
        return DiffusionBatch(
            latents=torch.full((count, frames, CHANNELS, SIDE, SIDE), CLEAN),
            reference_latents=torch.full((count, CHANNELS, SIDE, SIDE), 3.0),
            image_embeddings=torch.full((count, 5), 7.0),
            face_masks=torch.full((count, 1, SIZE_PX, SIZE_PX), 0.25),
            mouth_masks=self.mouth_masks[rows],
            audio_windows=torch.full((count, frames, 2, 1, 1), 11.0),
            rows=torch.from_numpy(rows),
            classes=torch.tensor(self.classes)[rows],
        )


@pytest.fixture
def settings(repository: Path) -> TrainDiffusion:
    section = load_params(repository / "profiles/demo.yaml").train_diffusion
    return section.model_copy(
        update={
            "num_frames": FRAMES,
            "condition_dropout": ConditionDropout(audio=0, image=0, emotion=0, all=0),
            "short_window_fraction": 0.0,
            "clip_prior_fraction": 0.0,
            "sigma_log_mean": math.log(SIGMA),
            "sigma_log_std": 1e-9,
            "mouth_weight": 3.0,
            "discrimination_weight": 0.1,
            "discrimination_max_sigma": 2.0,
            "adapter_lr_scale": 5.0,
        }
    )


def build(settings: TrainDiffusion, classes: list[int] | None = None, **changes: Any) -> DiffusionObjective:
    """An objective whose clip i has a prior of 100 + i, or 200 + i in the test split; class k has k."""
    train, test = Batches(classes or [3, 3]), Batches(classes or [3, 3])
    count = len(train.classes)
    clip_priors = (100.0 + np.arange(count, dtype=np.float32), 200.0 + np.arange(count, dtype=np.float32))
    return DiffusionObjective(
        denoiser=SvdDenoiser(Unet()),
        conditioners={
            "audio_projection": Windows(),
            "emotion_model": Emotion(),
            "pose_guider": Windows(),
        },
        train_batches=train,
        test_batches=test,
        clip_priors=tuple(priors[:, None] for priors in clip_priors),
        class_priors=np.arange(len(CLASSES), dtype=np.float32)[:, None],
        portrait=lambda latents: latents / SCALING_FACTOR,
        fps=FPS,
        settings=settings.model_copy(update=changes),
    )


@pytest.fixture
def constant_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of the latents is 4 everywhere; noise levels stay random."""
    randn = torch.randn
    monkeypatch.setattr(
        diffusion.torch, "randn", lambda *size: randn(*size) if len(size) == 1 and type(size[0]) is int
        else torch.full(size[0] if len(size) == 1 else size, NOISE),
    )  # fmt: skip


def predicted(objective: DiffusionObjective, kept: Kept, sigma: float = SIGMA) -> tuple[Tensor, Tensor, dict]:
    batch = objective.train_batches.draw(0, 2)
    noise = torch.full_like(batch.latents, NOISE)
    priors = torch.tensor([[6.0], [9.0]])
    errors, logits = objective.predict(batch, priors, torch.full((2,), sigma), kept, noise)
    return errors, logits, objective.network.seen[-1]


def test_the_network_sees_what_svd_sees(settings: TrainDiffusion) -> None:
    errors, logits, seen = predicted(build(settings), Kept.everything(2))
    noisy, image = seen["sample"].split(CHANNELS, dim=2)
    assert noisy.unique().item() == pytest.approx(4.0, **TOLERANCE)
    # SVD's image latent is the autoencoder's own: the stored 3 is scaled by 0.5 and is unscaled to 6.
    assert image.shape == noisy.shape and image.unique().item() == pytest.approx(6.0)
    assert seen["timestep"].tolist() == pytest.approx([0.25 * math.log(0.75)] * 2, **TOLERANCE)
    assert seen["added_time_ids"].tolist() == [[12.5, 8.0, 16.0]] * 2
    assert seen["encoder_hidden_states"].shape == (2, 1, 5)
    assert seen["encoder_hidden_states"].unique().item() == 7.0
    assert seen["audio_tokens"].unique().item() == 11.0
    assert seen["emotion_tokens"].flatten().tolist() == [6.0, 9.0]
    assert seen["face_mask"].unique().item() == seen["pose_feature"].unique().item() == 0.25
    # The velocity is 2 and the network says 0.5.
    assert errors.shape == (2, FRAMES, CHANNELS, SIDE, SIDE)
    assert errors.unique().item() == pytest.approx(1.5**2, **TOLERANCE)
    assert logits[0].tolist() == pytest.approx([math.log(7.0) if c == 3 else 0.0 for c in range(22)])


@pytest.mark.parametrize("dropped", ["audio", "image", "emotion"])
def test_a_dropped_condition_is_zero_and_the_others_stay(settings: TrainDiffusion, dropped: str) -> None:
    flags = {name: torch.tensor([True, name != dropped]) for name in ("audio", "image", "emotion")}
    seen = predicted(build(settings), Kept(flags))[2]
    present = {
        "audio": seen["audio_tokens"].flatten(1).abs().sum(1) > 0,
        "emotion": seen["emotion_tokens"].flatten(1).abs().sum(1) > 0,
        "image": seen["sample"][:, :, CHANNELS:].flatten(1).abs().sum(1) > 0,
        "image token": seen["encoder_hidden_states"].flatten(1).abs().sum(1) > 0,
    }
    for name, values in present.items():
        assert values.tolist() == [True, name.split()[0] != dropped], name
    assert seen["face_mask"].min() == 0.25


def test_the_loss_is_the_velocity_error_plus_the_weighted_discrimination(
    settings: TrainDiffusion, constant_noise: None
) -> None:
    # Logits are ln 7 for class 3 and 0 for the others: probabilities 7 / 28 and 1 / 28.
    for classes, entropy in (([3, 3], math.log(4)), ([3, 4], (math.log(4) + math.log(28)) / 2)):
        loss, logged = build(settings, classes).loss(0, 2)
        assert logged["diffusion"] == pytest.approx(2.25, **TOLERANCE) and 0 <= logged["data_seconds"] < 60
        assert logged["discrimination"] == pytest.approx(entropy, **TOLERANCE)
        assert loss.item() == pytest.approx(2.25 + 0.1 * entropy, **TOLERANCE)


def test_unlabelled_clips_do_not_count_in_the_discrimination(
    settings: TrainDiffusion, constant_noise: None
) -> None:
    loss, logged = build(settings, [-1, 4, -1]).loss(0, 3)
    assert loss.item() == pytest.approx(2.25 + 0.1 * math.log(28), **TOLERANCE)
    loss, logged = build(settings, [-1, -1]).loss(0, 2)
    assert loss.item() == pytest.approx(2.25, **TOLERANCE) and "discrimination" not in logged


@pytest.mark.parametrize(("limit", "counts"), [(0.74, False), (0.76, True)])
def test_noisy_samples_do_not_count_in_the_discrimination(
    settings: TrainDiffusion, constant_noise: None, limit: float, counts: bool
) -> None:
    loss, logged = build(settings, discrimination_max_sigma=limit).loss(0, 2)
    assert ("discrimination" in logged) is counts
    assert loss.item() == pytest.approx(2.25 + counts * 0.1 * math.log(4), **TOLERANCE)


def test_the_mouth_weighs_three_times_as_much(settings: TrainDiffusion, constant_noise: None) -> None:
    objective = build(settings, [-1, -1])
    objective.train_batches.mouth_masks[...] = 0.0
    objective.train_batches.mouth_masks[:, :, SIZE_PX // 2 :] = 1.0  # the lower half
    weights = objective._weights(objective.train_batches.mouth_masks, torch.Size((SIDE, SIDE)))
    # 1 above and 3 below, divided by their mean of 2.
    assert weights[0, 0, 0].mean(1).tolist() == [0.5, 0.5, 1.5, 1.5]
    loss = objective.loss(0, 2)[0]
    assert loss.item() == pytest.approx(2.25, **TOLERANCE)

    def wrong_in_the_mouth(**inputs: Tensor) -> SimpleNamespace:
        sample = torch.full_like(inputs["sample"][:, :, :CHANNELS], 2.0)
        sample[..., SIDE // 2 :, :] = 3.0
        return SimpleNamespace(sample=sample, features=torch.zeros(len(sample), FRAMES, 22, 1, 1))

    objective.network.forward = wrong_in_the_mouth
    assert objective.loss(0, 2)[0].item() == pytest.approx(0.75, **TOLERANCE)  # half of the picture, at 1.5
    half = torch.zeros(1, 1, 2, 2)
    half[..., 0] = 1.0  # a latent that lies half inside
    assert objective._weights(half, torch.Size((1, 1))).item() == 1.0


def test_noise_levels_are_log_normal(settings: TrainDiffusion) -> None:
    objective = build(settings, [-1], sigma_log_mean=0.5, sigma_log_std=0.3)
    torch.manual_seed(0)
    objective.loss(0, 4000)
    logarithms = 4 * objective.network.seen[-1]["timestep"]
    assert logarithms.mean().item() == pytest.approx(0.5, abs=0.02)
    assert logarithms.std().item() == pytest.approx(0.3, abs=0.02)
    below = (logarithms < 0.5 - 0.3).float().mean().item()
    assert below == pytest.approx(0.1587, abs=0.03)  # of a normal distribution


def test_noise_differs_between_samples_and_has_unit_variance(settings: TrainDiffusion) -> None:
    objective = build(settings, [-1])
    torch.manual_seed(0)
    objective.loss(0, 500)
    noise = (objective.network.seen[-1]["sample"][:, :, :CHANNELS] * 1.25 - CLEAN) / SIGMA
    assert noise.mean().item() == pytest.approx(0.0, abs=0.02)
    assert noise.std().item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, [3.0, 5.0, 102.0]), (1.0, [100.0, 101.0, 102.0])])
def test_priors_are_class_means_or_the_clips_own(
    settings: TrainDiffusion, fraction: float, expected: list[float]
) -> None:
    objective = build(settings, [3, 5, -1], clip_prior_fraction=fraction)  # the last one has no label
    objective.loss(0, 3)
    assert objective.network.seen[-1]["emotion_tokens"].flatten().tolist() == expected


def test_a_fraction_of_the_priors_are_the_clips_own(settings: TrainDiffusion) -> None:
    objective = build(settings, [3], clip_prior_fraction=0.2)
    torch.manual_seed(0)
    objective.loss(0, 2000)
    own = objective.network.seen[-1]["emotion_tokens"].flatten() == 100.0
    assert own.float().mean().item() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("name", ["audio", "image", "emotion", "all"])
def test_the_loss_drops_conditions(settings: TrainDiffusion, name: str) -> None:
    chances = {"audio": 0.0, "image": 0.0, "emotion": 0.0, "all": 0.0} | {name: 0.3}
    objective = build(settings, [3], condition_dropout=ConditionDropout(**chances))
    torch.manual_seed(0)
    objective.loss(0, 2000)
    seen = objective.network.seen[-1]
    tokens = {"audio": "audio_tokens", "image": "encoder_hidden_states", "emotion": "emotion_tokens"}
    for condition, key in tokens.items():
        lost = (seen[key].flatten(1) == 0).all(1).float().mean().item()
        assert lost == pytest.approx(0.3 if name in (condition, "all") else 0.0, abs=0.03), condition


@pytest.mark.parametrize(("fraction", "drawn"), [(0.0, (7, 6, FRAMES)), (1.0, (7, 12, 2))])
def test_short_windows_show_as_many_more_clips(
    settings: TrainDiffusion, fraction: float, drawn: tuple[int, int, int]
) -> None:
    objective = build(settings, short_window_fraction=fraction)
    objective.loss(7, 6)
    assert objective.train_batches.drawn[-1] == drawn
    assert objective.network.seen[-1]["sample"].shape[:2] == drawn[1:]


def test_validation_measures_losses_and_what_conditions_are_worth(
    settings: TrainDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusion, "VALIDATION_SIGMAS", (SIGMA,))
    monkeypatch.setattr(diffusion.torch, "randn", lambda size: torch.full(size, NOISE))
    objective = build(settings, [3, 4, -1, 3])
    # The velocity is 2: an error of 0.5^2 = 0.25, without speech of 1, without emotion of 0.75^2 = 0.5625.
    unet = objective.network
    unet.velocity, unet.lost_audio, unet.lost_emotion = 1.5, -0.5, -0.25
    metrics = objective.validate(3)
    assert metrics == {
        "loss_sigma_0.75": pytest.approx(0.25, **TOLERANCE),
        "class_accuracy_sigma_0.75": pytest.approx(2 / 3),  # the unlabelled clip does not count
        "audio_gain_sigma_0.75": pytest.approx(3.0, **TOLERANCE),
        "emotion_gain_sigma_0.75": pytest.approx(1.25, **TOLERANCE),
    }
    size = 2 * settings.training.batch_size
    assert objective.test_batches.drawn == [(10**9, size, None)] and not objective.train_batches.drawn
    told = objective.network.seen[0]["emotion_tokens"].flatten()[:4].tolist()
    assert told == [3.0, 4.0, 202.0, 3.0]  # class means, and what is known of the clip without a label


def test_validation_uses_four_fixed_noise_levels(settings: TrainDiffusion) -> None:
    objective = build(settings)
    metrics = objective.validate(0)
    levels = [math.exp(4 * inputs["timestep"][0].item()) for inputs in objective.network.seen[::3]]
    assert levels == pytest.approx([0.3, 1.0, 3.0, 10.0], rel=1e-4)
    assert {name for name in metrics if name.startswith("loss")} == {
        f"loss_sigma_{level}" for level in ("0.3", "1", "3", "10")
    }


def test_what_is_trained_and_how_fast(settings: TrainDiffusion) -> None:
    objective = build(settings)
    unet, emotion = objective.network, objective.emotion_model
    assert not any(p.requires_grad for p in emotion.codebook.parameters())
    assert not any(p.requires_grad for p in unet.attention.to_k.parameters())
    pretrained, new = objective.parameter_groups(2.0)
    assert (pretrained["lr"], new["lr"]) == (2.0, 10.0)
    assert {id(p) for p in pretrained["params"]} == {id(p) for p in unet.stock.parameters()}
    others = (objective.modules[name] for name in ("audio_projection", "pose_guider"))
    modules = (unet.adapter, emotion.free, *others)
    assert {id(p) for p in new["params"]} == {id(p) for module in modules for p in module.parameters()}
