"""Fine-tuning of the video backbone to speech and emotion (paper section 3, official `emo.py`).

    loss = MSE of the velocity at a log-normal noise level, the mouth weighted by `mouth_weight`
         + discrimination_weight * cross-entropy of the 22 classes read off the UNet's mid-block features

UNet, adapters, audio projection, emotion model (whole-bank mode, the bank itself stays as learned) and
pose guider are trained together; autoencoder, image encoder and speech encoder are frozen, their outputs
come from `encode`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicetalk.config import ConditionDropout, TrainDiffusion
from dicetalk.data.dataset import DiffusionBatch, DiffusionBatches
from dicetalk.models.backbones.denoisers.base import Conditions, Denoiser
from dicetalk.models.conditions.base import AdaptedCondition
from dicetalk.models.conditions.table import CONDITIONS, adapted
from dicetalk.models.emotion import EmotionModel
from dicetalk.training.parallel import num_processes, own_slice, total, use_own_random_numbers

MOTION_BUCKET, EXPRESSION_BUCKET = 8.0, 16.0  # constants of the official pipeline
SHORT_WINDOW_FRAMES = 2
VALIDATION_SIGMAS = (0.3, 1.0, 3.0, 10.0)
VALIDATION_STEP = 10**9  # draws the validation batch from a seed that training never reaches


class Kept:
    """Which conditions of each sample are kept.

    Args:
        flags: boolean `(batch,)` by name, of all conditions.
    """

    def __init__(self, flags: Mapping[str, Tensor]):
        self.flags = dict(flags)

    def __getitem__(self, name: str) -> Tensor:
        return self.flags[name]

    @classmethod
    def draw(cls, count: int, chances: ConditionDropout) -> Kept:
        """Draw independent drops of each condition, and of all at once, with the global random state."""
        *draws, everything = torch.rand(len(CONDITIONS) + 1, count)
        kept = everything >= chances.all
        return cls(
            {
                condition.name: kept & (draw >= getattr(chances, condition.name, condition.dropout))
                for condition, draw in zip(CONDITIONS, draws, strict=True)
            }
        )

    def part(self, samples: slice) -> Kept:
        """Return the conditions of some of the samples."""
        return Kept({name: flags[samples] for name, flags in self.flags.items()})

    def without(self, name: str) -> Kept:
        """Return the same with one condition dropped in all samples."""
        return Kept({**self.flags, name: torch.zeros_like(self.flags[name])})

    @classmethod
    def everything(cls, count: int) -> Kept:
        """Keep all conditions."""
        return cls({condition.name: torch.ones(count, dtype=torch.bool) for condition in CONDITIONS})


class DiffusionObjective:
    """Noise prediction and emotion discrimination.

    Args:
        denoiser: initialised from the backbone.
        conditioners: networks of the conditions and the pose guider by name, as they are saved; the emotion
            model has the learned bank.
        train_batches: windows of the training identities.
        test_batches: windows of held-out identities.
        clip_priors: `mu` of each clip of the training and the test table, two arrays `(clips, dim)`.
        class_priors: class means in the order of `dicetalk.labels.CLASSES` `(22, dim)`.
        portrait: from encoded latents of a picture to what the backbone is conditioned on, see `Codec`.
        fps: the model's frame rate.
        settings: the section of `params.yaml`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        conditioners: Mapping[str, nn.Module],
        train_batches: DiffusionBatches,
        test_batches: DiffusionBatches,
        clip_priors: tuple[np.ndarray, np.ndarray],
        class_priors: np.ndarray,
        portrait: Callable[[Tensor], Tensor],
        fps: float,
        settings: TrainDiffusion,
    ):
        self.denoiser = denoiser
        self.train_batches, self.test_batches = train_batches, test_batches
        self.train_priors, self.test_priors = (torch.from_numpy(priors) for priors in clip_priors)
        self.class_priors = torch.from_numpy(class_priors)
        self.portrait, self.settings = portrait, settings
        self.motion = torch.tensor([fps, MOTION_BUCKET, EXPRESSION_BUCKET])
        self.modules: dict[str, Any] = {denoiser.files.denoiser: denoiser.network, **conditioners}
        # No gradient reaches these; the bank is learned before.
        if self.emotion_model.config.use_bank:
            self.emotion_model.codebook.requires_grad_(False)
        for weight in denoiser.unused_parameters():
            weight.requires_grad_(False)

    @property
    def network(self) -> Any:
        """The module of the denoiser."""
        return self.denoiser.network

    @property
    def emotion_model(self) -> EmotionModel:
        """The bank, and the classifier that reads the denoiser's features."""
        return self.modules["emotion_model"]

    def replace(self, name: str, module: nn.Module) -> None:
        """Put another module in place of one of `modules`."""
        self.modules[name] = module
        if name == self.denoiser.files.denoiser:
            self.denoiser.network = module

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the pretrained weights at `lr` and the new ones at `lr * adapter_lr_scale`."""
        adapters = self.denoiser.adapter_parameters()
        names = {id(parameter) for parameter in adapters}
        pretrained = [p for p in self.network.parameters() if id(p) not in names and p.requires_grad]
        new = [
            p for module in self.modules.values() if module is not self.network for p in module.parameters()
        ]
        new = adapters + [parameter for parameter in new if parameter.requires_grad]
        return [{"params": pretrained, "lr": lr}, {"params": new, "lr": lr * self.settings.adapter_lr_scale}]

    def loss(self, step: int, batch_size: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of one batch."""
        # 1. Data; short windows show as many more clips
        started = time.monotonic()
        num_frames = self.settings.num_frames
        if torch.rand(()) < self.settings.short_window_fraction:
            num_frames, batch_size = SHORT_WINDOW_FRAMES, batch_size * num_frames // SHORT_WINDOW_FRAMES
            batch_size -= batch_size % num_processes()
        own = own_slice(batch_size)
        batch = self.train_batches.draw(step, batch_size, num_frames, own)
        data_seconds = time.monotonic() - started

        # 2. Noise level, prior, dropped conditions and noise, of the whole batch on every process
        normal = torch.randn(batch_size)[own]
        sigma = torch.exp(self.settings.sigma_log_mean + self.settings.sigma_log_std * normal)
        by_clip = torch.rand(batch_size)[own] < self.settings.clip_prior_fraction
        by_clip |= batch.classes < 0
        priors = torch.where(by_clip[:, None], self.train_priors[batch.rows], self._class_means(batch))
        kept = Kept.draw(batch_size, self.settings.condition_dropout).part(own)
        noise = torch.randn(batch_size, *batch.latents.shape[1:])[own]
        use_own_random_numbers()

        # 3. Terms
        errors, logits = self.predict(batch, priors, sigma, kept, noise)
        diffusion = (errors * self._weights(batch.mouth_masks.to(errors.device), errors.shape[-2:])).mean()
        readable = (batch.classes >= 0) & (sigma < self.settings.discrimination_max_sigma)
        logged = {"diffusion": diffusion.item(), "data_seconds": data_seconds}
        num_readable = total(readable.sum().to(errors.device))
        if not num_readable:
            return diffusion, logged
        discrimination = F.cross_entropy(
            logits[readable], batch.classes[readable].to(logits.device), reduction="sum"
        ) * (num_processes() / num_readable)
        loss = diffusion + self.settings.discrimination_weight * discrimination
        return loss, logged | {"discrimination": discrimination.item()}

    def predict(
        self, batch: DiffusionBatch, priors: Tensor, sigma: Tensor, kept: Kept, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Noise a batch and predict its velocity and classes.

        Args:
            batch: windows with conditions.
            priors: emotion priors `(batch, prior_dim)`.
            sigma: noise levels `(batch,)`.
            kept: conditions that are not dropped, as guidance drops them: a zero image token and image
                latent, the tokens of a zero speech window, the tokens of a zero prior.
            noise: in the shape of the latents, drawn on the CPU: the same noise on any machine.

        Returns:
            Squared velocity error in the shape of the latents, and class logits `(batch, 22)`.
        """
        device = self.network.device
        clean, sigma, noise = batch.latents.to(device), sigma.to(device), noise.to(device)
        image = kept["image"].float().to(device)
        face_mask = batch.face_masks.to(device)
        conditions = Conditions(
            portrait=self.portrait(batch.reference_latents.to(device)) * image[:, None, None, None],
            image=(batch.image_embeddings.to(device) * image[:, None])[:, None],
            adapted=tuple(self._tokens(condition, batch, priors, kept) for condition in adapted()),
            motion=self.motion.to(device).expand(len(clean), -1),
            face_mask=face_mask,
            pose=self.modules["pose_guider"](face_mask),
        )
        scaled = self.denoiser.noise.input(clean, noise, sigma)
        prediction = self.denoiser.predict(scaled, sigma, conditions)
        target = self.denoiser.noise.target(clean, noise, sigma)
        error = (prediction.output.float() - target).square()
        logits = self.emotion_model.classifier(prediction.features.mean(1))
        return error, logits.float()

    def _tokens(
        self, condition: AdaptedCondition, batch: DiffusionBatch, priors: Tensor, kept: Kept
    ) -> Tensor:
        """Return the tokens of a condition, those of zeros where it is dropped."""
        values = priors if condition.source == "priors" else getattr(batch, condition.source)
        flags = kept[condition.name].to(values.dtype)
        values = values * flags.reshape(-1, *[1] * (values.ndim - 1))
        return condition.tokens(self.modules[condition.network], values.to(self.network.device))

    def validate(self, step: int) -> dict[str, float]:
        """Measure held-out identities with class-mean priors at fixed noise levels and with fixed noise.

        `audio_gain` and `emotion_gain` are by how much the error grows, relatively, when the condition is
        dropped.
        """
        batch = self.test_batches.draw(VALIDATION_STEP, 2 * self.settings.training.batch_size)
        own = (batch.classes < 0)[:, None]
        priors = torch.where(own, self.test_priors[batch.rows], self._class_means(batch))
        labelled = batch.classes >= 0
        everything = Kept.everything(len(priors))
        dropped = {condition.name: everything.without(condition.name) for condition in adapted()}
        metrics = {}
        for sigma in VALIDATION_SIGMAS:
            levels = torch.full((len(priors),), sigma)
            noise = torch.randn(batch.latents.shape)
            errors, logits = self.predict(batch, priors, levels, everything, noise)
            hits = logits.argmax(-1).cpu()[labelled] == batch.classes[labelled]
            metrics[f"loss_sigma_{sigma:g}"] = errors.mean().item()
            metrics[f"class_accuracy_sigma_{sigma:g}"] = hits.float().mean().item()
            for name, kept in dropped.items():
                without = self.predict(batch, priors, levels, kept, noise)[0]
                metrics[f"{name}_gain_sigma_{sigma:g}"] = (without.mean() / errors.mean() - 1).item()
        return metrics

    def _weights(self, mouth_masks: Tensor, latent_size: torch.Size) -> Tensor:
        """Return `(batch, 1, 1, h, w)`: `mouth_weight` where a latent lies in the mouth, with a mean of 1."""
        inside = F.adaptive_avg_pool2d(mouth_masks, latent_size)[:, None]
        weights = 1 + (self.settings.mouth_weight - 1) * inside
        return weights / weights.mean((-2, -1), keepdim=True)

    def _class_means(self, batch: DiffusionBatch) -> Tensor:
        return self.class_priors[batch.classes.clamp(min=0)]
