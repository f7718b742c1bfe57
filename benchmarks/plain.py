"""The released inference algorithm, step by step and without shortcuts: what ours is measured against.

Own code after a description of the release: conditions are computed frame by frame with all constants again,
the temporal layers' tokens are repeated for each pixel before they are projected, the image's one-token
attention is carried out, masks are resized in each layer, and each window gathers its own copy of everything.
Weights are those of the modules it is given. `tests/parity` checks our modules against the release's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import nn
from torch.nn import functional as F

from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.projection import AudioProjection
from dicetalk.models.unet import DiceTalkUNet


class PlainProcessor(nn.Module):
    """Decoupled cross-attention of one layer; `inputs` is set by `PlainUNet` before each forward pass."""

    def __init__(self, processor: nn.Module):
        super().__init__()
        self.temporal = processor.temporal
        self.to_k_ip, self.to_v_ip = processor.to_k_ip, processor.to_v_ip
        self.inputs: dict[str, torch.Tensor] = {}

    def forward(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        query = attn.to_q(hidden_states)
        image = self.context(self.inputs["image"], len(hidden_states))
        output = attend(query, attn.to_k(image), attn.to_v(image), attn.heads)
        for name, to_k, to_v in zip(("audio", "emotion"), self.to_k_ip, self.to_v_ip, strict=True):
            tokens = self.context(self.inputs[name], len(hidden_states))
            term = attend(query, to_k(tokens), to_v(tokens), attn.heads)
            if not self.temporal:
                height, width = self.inputs["sizes"][hidden_states.shape[1]]
                mask = F.interpolate(self.inputs["mask"], (height, width), mode="bicubic")
                term = term * mask.flatten(2).transpose(1, 2)
            output = output + term
        return attn.to_out[1](attn.to_out[0](output))

    def context(self, tokens: torch.Tensor, count: int) -> torch.Tensor:
        """Tokens of each row of the layer: of its frame, or the window's mean repeated for each pixel."""
        if not self.temporal:
            return tokens.flatten(0, 1)
        mean = tokens.mean(1)
        return mean.repeat_interleave(count // len(mean), dim=0)


def attend(query, key, value, num_heads):
    query, key, value = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class PlainUNet(nn.Module):
    """Stock diffusers UNet with `PlainProcessor`s; shares the weights of a `DiceTalkUNet`."""

    def __init__(self, model: DiceTalkUNet):
        super().__init__()
        with torch.device("meta"):
            self.unet = UNetSpatioTemporalConditionModel.from_config(model.config)
        state = model.state_dict()
        stock = {key: state[key] for key in self.unet.state_dict()}
        self.unet.load_state_dict(stock, assign=True)
        self.unet.eval()
        self.processors = []
        layers = dict(self.unet.named_modules())
        for name, attn in model.named_cross_attentions():
            processor = PlainProcessor(attn.processor)
            layers[name].set_processor(processor)
            self.processors.append(processor)
        self.unet.conv_in.register_forward_hook(lambda module, args, output: output + self.pose)

    def forward(self, sample, timestep, image, time_ids, audio, emotion, mask, pose):
        """All conditions per sample and frame `(batch, frames, ...)`; mask `(batch * frames, 1, H, W)`."""
        height, width = sample.shape[-2:]
        sizes = {}
        for _ in self.unet.config.down_block_types:
            sizes[height * width] = (height, width)
            height, width = (height + 1) // 2, (width + 1) // 2
        inputs = {"image": image, "audio": audio, "emotion": emotion, "mask": mask, "sizes": sizes}
        for processor in self.processors:
            processor.inputs = inputs
        self.pose = pose.flatten(0, 1)
        placeholder = sample.new_zeros(len(sample), 1, 1)
        return self.unet(sample, timestep, placeholder, time_ids, return_dict=False)[0]


@dataclass
class PlainConditions:
    """Per frame: image, audio, emotion tokens and their unconditional counterparts, pose features."""

    image_tokens: torch.Tensor
    image_latents: torch.Tensor
    audio: torch.Tensor
    null_audio: torch.Tensor
    emotion: torch.Tensor
    null_emotion: torch.Tensor
    mask: torch.Tensor
    pose: torch.Tensor
    time_ids: torch.Tensor


def emotion_tokens(model: EmotionModel, prior: torch.Tensor) -> torch.Tensor:
    """One prior `(1, 1, prior_dim)` through the whole bank; the nearest code is looked up, too."""
    model.codebook(prior)
    bank = model.kv_tokens_linear(model.codebook.codebook.weight).flatten(0, 1)[None]
    query = model.emo_linear(prior).flatten(0, 1)
    layer = model.attention
    return attend(layer.fc_q(query), layer.fc_k(bank), layer.fc_v(bank), layer.num_heads)[None]


@torch.no_grad()
def condition_tokens(
    audio_projection: AudioProjection,
    emotion_model: EmotionModel,
    windows: torch.Tensor,
    prior: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """Frame by frame: audio, null audio, emotion and null emotion tokens `(frames, tokens, dim)` each."""
    rows = []
    for window in windows:
        audio = audio_projection(window[None, None])
        null_audio = audio_projection(torch.zeros_like(window[None, None]))
        emotion = emotion_tokens(emotion_model, prior[None, None])
        null_emotion = emotion_tokens(emotion_model, torch.zeros_like(prior[None, None]))
        rows.append([item[0, 0] for item in (audio, null_audio, emotion, null_emotion)])
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


@torch.no_grad()
def pose_features(pose_guider: PoseGuider, mask: torch.Tensor, num_frames: int) -> torch.Tensor:
    """The same mask `(1, 1, H, W)` encoded for each frame: `(frames, channels, h, w)`."""
    return pose_guider(mask.expand(num_frames, 3, -1, -1))


@torch.no_grad()
def denoise(
    unet: PlainUNet,
    scheduler: EulerDiscreteScheduler,
    latents: torch.Tensor,
    conditions: PlainConditions,
    scales: tuple[float, float],
    window: int,
    shift: int,
) -> torch.Tensor:
    """Windows on a ring; each takes its own Euler step, frames average over their windows.

    Latents `(1, frames, channels, h, w)` with the padding frames that the ring needs, as all conditions.
    """
    total = latents.shape[1]
    for step, timestep in enumerate(scheduler.timesteps):
        result, counts = torch.zeros_like(latents), torch.zeros(total)
        for start in range(0, total, window):
            frames = [(start - step * shift % window + k) % total for k in range(window)]
            noisy = latents[:, frames]
            velocity = guided_velocity(unet, scheduler, noisy, timestep, conditions, frames, scales)
            scheduler._step_index = None
            stepped = scheduler.step(velocity, timestep, noisy).prev_sample
            for k, frame in enumerate(frames):
                result[:, frame] += stepped[:, k]
                counts[frame] += 1
        latents = result / counts[None, :, None, None, None]
    return latents


def guided_velocity(unet, scheduler, noisy, timestep, conditions, frames, scales):
    """One window's velocity from the three branches: nothing, image, everything."""
    scheduler._step_index = None
    scaled = scheduler.scale_model_input(noisy, timestep)
    image_latents = torch.stack([conditions.image_latents for _ in frames])[None]
    image_tokens = torch.stack([conditions.image_tokens for _ in frames])[None]
    audio, null_audio, emotion, null_emotion, pose = (
        torch.stack([values[frame] for frame in frames])[None]
        for values in (
            conditions.audio,
            conditions.null_audio,
            conditions.emotion,
            conditions.null_emotion,
            conditions.pose,
        )
    )
    nothing, image, everything = unet(
        torch.cat([scaled.repeat(3, 1, 1, 1, 1), with_none(image_latents, 1)], dim=2),
        timestep,
        with_none(image_tokens, 1),
        conditions.time_ids.expand(3, -1),
        torch.cat([null_audio, null_audio, audio]),
        torch.cat([null_emotion, null_emotion, emotion]),
        conditions.mask.repeat(3 * len(frames), 1, 1, 1),
        torch.cat([pose, pose, pose]),
    )
    return (nothing + scales[0] * (image - nothing) + scales[1] * (everything - image))[None]


def with_none(values: torch.Tensor, absent: int) -> torch.Tensor:
    """`absent` zero rows, then `values` up to three rows."""
    return torch.cat([torch.zeros_like(values)] * absent + [values] * (3 - absent))
