"""Fully sharded training (FSDP2): each process holds its part of weights, gradients, moments and average.

Units, such as the blocks of a UNet, are gathered when they run and set free afterwards; what lies outside of
them is gathered for the whole step. Checkpoints hold full weights, as unsharded training writes them, so that
either can continue the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from dicetalk.training.parallel import process_index


def shard(module: nn.Module, units: Sequence[nn.Module]) -> None:
    """Divide the weights of `module` among the processes, in place; forward passes must enter through it.

    Args:
        module: the whole.
        units: parts of it that are gathered one at a time; only their `forward` may use their weights.
    """
    from torch.distributed.fsdp import fully_shard

    for unit in units:
        fully_shard(unit)
    fully_shard(module)


def gathered(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return full tensors on the CPU, on the main process alone; every process must call this.

    What is whole, contiguous and on the CPU already is not copied.
    """
    full = {}
    for name, value in values.items():
        tensor = value.full_tensor() if isinstance(value, DTensor) else value
        if process_index() == 0:
            full[name] = tensor.cpu().contiguous()
    return full


@torch.no_grad()
def fill(target: Tensor, value: Tensor) -> None:
    """Copy a full tensor into one of the same shape, of which this process may have a part."""
    if isinstance(target, DTensor):
        value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
    target.copy_(value)


def own_part(value: Tensor) -> Tensor:
    """Return what this process has of a tensor."""
    return value.to_local() if isinstance(value, DTensor) else value
