"""Fine-tuning of the video backbone to speech and emotion (paper section 3, official `emo.py`).

    loss = MSE of the velocity at a log-normal noise level, the mouth weighted by `mouth_weight`
         + discrimination_weight * cross-entropy of the 22 classes read off the UNet's mid-block features

UNet, adapters, audio projection, emotion model (whole-bank mode, the bank itself stays as learned) and
pose guider are trained together; autoencoder, image encoder and speech encoder are frozen, their outputs
come from `encode`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicetalk.config import ConditionDropout, TrainDiffusion
from dicetalk.data.dataset import DiffusionBatch, DiffusionBatches
from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.projection import AudioProjection
from dicetalk.models.sampling import add_noise, precondition, velocity_target
from dicetalk.models.unet import DiceTalkUNet
from dicetalk.training.parallel import num_processes, own_slice, total, use_own_random_numbers

MOTION_BUCKET, EXPRESSION_BUCKET = 8.0, 16.0  # constants of the official pipeline
SHORT_WINDOW_FRAMES = 2
VALIDATION_SIGMAS = (0.3, 1.0, 3.0, 10.0)
VALIDATION_STEP = 10**9  # draws the validation batch from a seed that training never reaches


@dataclass(frozen=True)
class Kept:
    """Which conditions of each sample are kept, boolean `(batch,)` each."""

    audio: Tensor
    image: Tensor
    emotion: Tensor

    @classmethod
    def draw(cls, count: int, chances: ConditionDropout) -> Kept:
        """Draw independent drops of each condition, and of all at once, with the global random state."""
        audio, image, emotion, everything = torch.rand(4, count)
        kept = everything >= chances.all
        return cls(
            kept & (audio >= chances.audio),
            kept & (image >= chances.image),
            kept & (emotion >= chances.emotion),
        )

    def part(self, samples: slice) -> Kept:
        """Return the conditions of some of the samples."""
        return Kept(self.audio[samples], self.image[samples], self.emotion[samples])

    @classmethod
    def everything(cls, count: int) -> Kept:
        """Keep all conditions."""
        kept = torch.ones(count, dtype=torch.bool)
        return cls(kept, kept, kept)


class DiffusionObjective:
    """Velocity prediction and emotion discrimination.

    Args:
        unet: initialised from the backbone.
        audio_projection: speech windows to tokens.
        emotion_model: with the learned bank.
        pose_guider: face mask to pose feature.
        train_batches: windows of the training identities.
        test_batches: windows of held-out identities.
        clip_priors: `mu` of each clip of the training and the test table, two arrays `(clips, dim)`.
        class_priors: class means in the order of `dicetalk.labels.CLASSES` `(22, dim)`.
        scaling_factor: of the autoencoder; the image latent is conditioned on without it, as in SVD.
        fps: the model's frame rate.
        settings: the section of `params.yaml`.
    """

    def __init__(
        self,
        unet: DiceTalkUNet,
        audio_projection: AudioProjection,
        emotion_model: EmotionModel,
        pose_guider: PoseGuider,
        train_batches: DiffusionBatches,
        test_batches: DiffusionBatches,
        clip_priors: tuple[np.ndarray, np.ndarray],
        class_priors: np.ndarray,
        scaling_factor: float,
        fps: float,
        settings: TrainDiffusion,
    ):
        self.unet, self.emotion_model, self.pose_guider = unet, emotion_model, pose_guider
        self.audio_projection = audio_projection
        self.train_batches, self.test_batches = train_batches, test_batches
        self.train_priors, self.test_priors = (torch.from_numpy(priors) for priors in clip_priors)
        self.class_priors = torch.from_numpy(class_priors)
        self.scaling_factor, self.settings = scaling_factor, settings
        self.time_ids = torch.tensor([fps, MOTION_BUCKET, EXPRESSION_BUCKET])
        self.modules: dict[str, nn.Module] = {
            "unet": unet,
            "audio_projection": audio_projection,
            "emotion_model": emotion_model,
            "pose_guider": pose_guider,
        }
        # No gradient reaches these: the bank is learned before, and softmax over one image token ignores
        # its key.
        if emotion_model.config.use_bank:
            emotion_model.codebook.requires_grad_(False)
        for _, attention in unet.named_cross_attentions():
            attention.to_k.requires_grad_(False)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the pretrained weights at `lr` and the new ones at `lr * adapter_lr_scale`."""
        adapters = self.unet.adapter_parameters()
        names = {id(parameter) for parameter in adapters}
        pretrained = [p for p in self.unet.parameters() if id(p) not in names and p.requires_grad]
        new = [
            p
            for name in ("audio_projection", "emotion_model", "pose_guider")
            for p in self.modules[name].parameters()
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
        device = self.unet.device
        clean, sigma = batch.latents.to(device), sigma.to(device)
        image = kept.image.float().to(device)
        image_latents = batch.reference_latents.to(device) / self.scaling_factor * image[:, None, None, None]
        image_tokens = (batch.image_embeddings.to(device) * image[:, None])[:, None]
        windows = (batch.audio_windows * kept.audio.float()[:, None, None, None, None]).to(device)
        priors = (priors * kept.emotion.float()[:, None]).to(device)
        face_masks = batch.face_masks.to(device)

        noise = noise.to(device)
        noisy = add_noise(clean, noise, sigma) * precondition(sigma).c_in[:, None, None, None, None]
        output = self.unet(
            sample=torch.cat([noisy, image_latents[:, None].expand(-1, clean.shape[1], -1, -1, -1)], dim=2),
            timestep=precondition(sigma).c_noise,
            encoder_hidden_states=image_tokens,
            added_time_ids=self.time_ids.to(device).expand(len(clean), -1),
            audio_tokens=self.audio_projection(windows),
            emotion_tokens=self.emotion_model(priors[:, None]).tokens,
            face_mask=face_masks,
            pose_feature=self.pose_guider(face_masks),
        )
        error = (output.sample.float() - velocity_target(clean, noise, sigma)).square()
        logits = self.emotion_model.classifier(output.features.mean(1))
        return error, logits.float()

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
        dropped = {
            "audio": Kept(~everything.audio, everything.image, everything.emotion),
            "emotion": Kept(everything.audio, everything.image, ~everything.emotion),
        }
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
