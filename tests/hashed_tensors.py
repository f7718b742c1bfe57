"""Weights and inputs of the golden vectors, computed from their names instead of stored.

Element `i` of a tensor is a 32-bit integer hash of `i` and the CRC of `"<seed>:<name>"`, mapped to [-1, 1),
scaled and rounded to float16: the same numbers on every machine, and no random generator that may change.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

Module = TypeVar("Module", bound=torch.nn.Module)


def hashed(name: str, shape: Sequence[int], seed: int, scale: float = 1.0) -> torch.Tensor:
    """An input: float32 of `shape` in [-scale, scale), each value exact in float16."""
    return (_uniform(name, shape, seed) * scale).half().float()


def hashed_weight(name: str, shape: Sequence[int], seed: int) -> torch.Tensor:
    """The entry `name` of a state dict, at a scale that keeps activations near one."""
    values = _uniform(name, shape, seed)
    if name.endswith(("mix_factor", "class_embedding", "codebook.codebook.weight")):
        pass
    elif len(shape) > 1:
        values *= math.sqrt(3 / math.prod(shape[1:]))
    elif name.endswith("bias"):
        values *= 0.1
    else:  # the gain of a norm
        values = 1 + 0.2 * values
    return values.half().float()


@torch.no_grad()
def fill(module: Module, seed: int) -> Module:
    """Give every entry of the module's state dict its hashed value; returns the module."""
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value.copy_(hashed_weight(name, value.shape, seed))
    return module


def _uniform(name: str, shape: Sequence[int], seed: int) -> torch.Tensor:
    bits = np.arange(math.prod(shape), dtype=np.uint32)  # arithmetic modulo 2^32
    bits *= np.uint32(0x9E3779B1)
    bits += np.uint32(zlib.crc32(f"{seed}:{name}".encode()))
    bits ^= bits >> 16
    bits *= np.uint32(0x7FEB352D)
    bits ^= bits >> 15
    bits *= np.uint32(0x846CA68B)
    bits ^= bits >> 16
    return torch.from_numpy((bits / 2.0**31 - 1).astype(np.float32)).reshape(tuple(shape))
