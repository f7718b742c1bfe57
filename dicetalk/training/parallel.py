"""One training on N processes: which examples are whose, and what is exchanged.

`training.batch_size` is the batch of all processes together. Each process draws the numbers of the whole
batch (rows, noise levels, noise, dropped conditions) from the step's seed and keeps its slice of them, so N
processes see the examples that one would see, and the loss follows the same curve up to rounding. What
networks draw themselves, dropout and samples of the embedding's Gaussian, comes from a seed of the step and
the process: the same distribution, other numbers.

Averages over slices of equal size are the average over the batch. Terms that are not plain averages over
samples need `gather` (every sample against every other) or `total` (an average over some of the samples).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from dicetalk.errors import DicetalkError

T = TypeVar("T")


def num_processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_index() -> int:
    """Return which of them this is, from 0, the main one, which alone reports and saves."""
    return dist.get_rank() if dist.is_initialized() else 0


def own_slice(batch_size: int) -> slice:
    """Return this process's part of a batch of all processes.

    Raises:
        DicetalkError: when the parts would not be equal.
    """
    count, rest = divmod(batch_size, num_processes())
    if rest:
        raise DicetalkError(
            f"A batch of {batch_size} samples cannot be divided among {num_processes()} processes; set "
            "training.batch_size, the batch of all processes together, to a multiple of their number."
        )
    return slice(process_index() * count, (process_index() + 1) * count)


def use_own_random_numbers() -> None:
    """Draw other numbers than the other processes, to the end of the step; alone, change nothing."""
    if num_processes() > 1:
        torch.manual_seed(torch.initial_seed() * num_processes() + process_index())


def gather(values: Tensor) -> Tensor:
    """Return the samples `(batch / N, ...)` of all processes as `(batch, ...)`, with gradients."""
    return values if num_processes() == 1 else _Gather.apply(values)


class _Gather(torch.autograd.Function):
    """Concatenation over processes; each sample's gradient is the sum of those that all processes have."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Return the values of all processes."""
        parts = [torch.empty_like(values) for _ in range(num_processes())]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the gradient of this process's values."""
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient[own_slice(len(gradient))]


def total(count: Tensor) -> int:
    """Return the sum of an integer tensor `()` over all processes."""
    if num_processes() > 1:
        count = count.clone()
        dist.all_reduce(count)
    return int(count.item())


def mean(numbers: dict[str, float], device: torch.device) -> dict[str, float]:
    """Return the average of each number over all processes, which must have the same names.

    Args:
        numbers: what this process measured.
        device: where the processes exchange tensors.
    """
    if num_processes() == 1:
        return numbers
    values = torch.tensor(list(numbers.values()), dtype=torch.float64, device=device)
    dist.all_reduce(values)
    return dict(zip(numbers, (values / num_processes()).tolist(), strict=True))


def chosen_by_main(choose: Callable[[], T]) -> T:
    """Let the main process choose, and return its choice on all.

    Raises:
        DicetalkError: on all processes, when `choose` raised it.
    """
    if num_processes() == 1:
        return choose()
    choice: list[Any] = [None]
    if process_index() == 0:
        try:
            choice = [choose()]
        except DicetalkError as error:
            choice = [error]
    dist.broadcast_object_list(choice)
    if isinstance(choice[0], DicetalkError):
        raise choice[0]
    return choice[0]


class Trained(nn.Module):
    """Modules as one whose forward pass is any function, where gradients are averaged or weights gathered."""

    def __init__(self, modules: dict[str, nn.Module]):
        super().__init__()
        self.modules_by_name = nn.ModuleDict(modules)

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return `function(*arguments)`."""
        return function(*arguments)
