"""Exponential moving average of trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """Keeps a smoothed copy of the parameters of named modules; a decay of 0 follows them exactly.

    The decay is ramped up, `min(decay, (1 + step) / (10 + step))`, so that the start does not dominate
    short runs.
    """

    def __init__(self, modules: dict[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.parameters = {
            f"{name}.{key}": parameter
            for name, module in modules.items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self.shadow = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the current weights after optimiser step `step`."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        names = list(self.shadow)
        torch._foreach_lerp_(
            [self.shadow[n] for n in names], [self.parameters[n].detach() for n in names], weight
        )

    @torch.no_grad()
    def copy_to_modules(self) -> None:
        """Overwrite the modules' weights with the average."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.shadow[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averaged weights inside a `with` block, then put the trained ones back."""
        trained = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.copy_to_modules()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(trained[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights themselves by name."""
        return self.shadow
