"""Fully sharded training (FSDP2): each process holds its part of weights, gradients, moments and average.

Units, such as the blocks of a UNet, are gathered when they run and set free afterwards; what lies outside of
them is gathered for the whole step. Checkpoints hold full weights, as unsharded training writes them, so that
either can continue the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


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


def gathered(values: Any) -> Any:
    """Return nested mappings and lists with full tensors on the CPU; every process must call this."""
    if isinstance(values, dict):
        return {name: gathered(value) for name, value in values.items()}
    if isinstance(values, list):
        return [gathered(value) for value in values]
    return values.full_tensor().cpu() if isinstance(values, DTensor) else values


def distributed_like(value: Tensor, example: Tensor) -> Tensor:
    """Return this process's part of a full tensor, divided as `example` is; unsharded ones stay whole."""
    if not isinstance(example, DTensor) or value.shape != example.shape:  # AdamW's step counts are scalars
        return value
    return distribute_tensor(value.to(example.device), example.device_mesh, example.placements)


def load_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load full weights into a sharded or unsharded module; missing and unexpected names are refused."""
    expected = module.state_dict()
    module.load_state_dict(
        {k: distributed_like(v, expected[k]) if k in expected else v for k, v in weights.items()}
    )


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Load an optimiser state with full tensors."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        index: {
            name: distributed_like(v, parameters[index]) if isinstance(v, Tensor) else v
            for name, v in values.items()
        }
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": moments})
