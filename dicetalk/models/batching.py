"""How many samples (clip x window x guidance branch) of the network fit into a memory budget."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dicetalk.errors import DicetalkError
from dicetalk.models.backbones.denoisers.base import Conditions, Denoiser
from dicetalk.models.conditions.table import adapted
from dicetalk.models.cost import CostMeter

SPACE = 8  # pixels per latent of the simulated face mask, which is small beside everything else


def samples_within(
    budget_gib: float, denoiser: Denoiser, num_frames: int, height: int, width: int, num_tokens: int
) -> int:
    """Return the largest batch whose forward pass stays within a budget.

    One sample's pass is simulated on tensors without storage; activations grow with the batch. Weights do
    not count. A GPU's larger pieces of feed-forward layers can add 0.25 GiB in all.

    Args:
        budget_gib: memory for activations.
        denoiser: the network; only its configuration and dtype are used.
        num_frames: frames per window.
        height: of the latents.
        width: of the latents.
        num_tokens: most tokens per frame that a condition with an adapter has.

    Raises:
        DicetalkError: when not even one sample fits.
    """
    dtype = denoiser.network.dtype
    with FakeTensorMode(), torch.no_grad():
        twin = denoiser.empty(denoiser.network.config)
        for module in twin.network.modules():  # `to` cannot convert fake parameters
            for name, weight in list(module.named_parameters(recurse=False)):
                setattr(module, name, torch.nn.Parameter(weight.to(dtype)))

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, dtype=dtype)

        widths, geometry = twin.widths, twin.geometry(SPACE)
        latent = (geometry.channels, height, width)
        conditions = Conditions(
            portrait=normal(1, *latent),
            image=normal(1, 1, widths.tokens),
            adapted=tuple(normal(1, num_frames, num_tokens, widths.tokens) for _ in adapted()),
            motion=normal(1, 3),
            face_mask=normal(1, 1, SPACE * height, SPACE * width),
            pose=normal(1, widths.pose, height, width),
        )
        inputs = twin.inputs(normal(1, num_frames, *latent), torch.ones(()), conditions)
        with CostMeter() as memory:
            twin.network(**inputs)
    samples = int(budget_gib * 2**30 // memory.peak_bytes)
    if samples < 1:
        raise DicetalkError(
            f"{num_frames} frames need {memory.peak_bytes / 2**30:.2f} GiB, more than the budget "
            f"of {budget_gib:g} GiB; raise `memory_budget_gib`, or take smaller windows or pictures."
        )
    return samples
