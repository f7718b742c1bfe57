"""How many samples (clip x window x guidance branch) of the UNet fit into a memory budget."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dicetalk.errors import DicetalkError
from dicetalk.models.cost import CostMeter
from dicetalk.models.unet import DiceTalkUNet


def samples_within(
    budget_gib: float, unet: DiceTalkUNet, num_frames: int, height: int, width: int, num_tokens: int
) -> int:
    """Return the largest batch whose forward pass stays within a budget.

    One sample's pass is simulated on tensors without storage; activations grow with the batch. Weights do
    not count. A GPU's larger pieces of feed-forward layers can add 0.25 GiB in all.

    Args:
        budget_gib: memory for activations.
        unet: the network; only its configuration and dtype are used.
        num_frames: frames per window.
        height: of the latents.
        width: of the latents.
        num_tokens: audio tokens per frame, and emotion tokens.

    Raises:
        DicetalkError: when not even one sample fits.
    """
    config = unet.config
    dim = config.cross_attention_dim
    with FakeTensorMode(), torch.no_grad():
        twin = DiceTalkUNet.from_config(config)
        for module in twin.modules():  # `to` cannot convert fake parameters
            for name, weight in list(module.named_parameters(recurse=False)):
                setattr(module, name, torch.nn.Parameter(weight.to(unet.dtype)))

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, dtype=unet.dtype)

        inputs = {
            "sample": normal(1, num_frames, config.in_channels, height, width),
            "timestep": torch.zeros(1),
            "encoder_hidden_states": normal(1, 1, dim),
            "added_time_ids": normal(1, 3),
            "audio_tokens": normal(1, num_frames, num_tokens, dim),
            "emotion_tokens": normal(1, num_frames, num_tokens, dim),
            "face_mask": normal(1, 1, 8 * height, 8 * width),
            "pose_feature": normal(1, config.block_out_channels[0], height, width),
        }
        with CostMeter() as memory:
            twin(**inputs)
    samples = int(budget_gib * 2**30 // memory.peak_bytes)
    if samples < 1:
        raise DicetalkError(
            f"{num_frames} frames need {memory.peak_bytes / 2**30:.2f} GiB, more than the budget "
            f"of {budget_gib:g} GiB; raise `memory_budget_gib`, or take smaller windows or pictures."
        )
    return samples
