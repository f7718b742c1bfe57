"""Where to compute on this machine, and with which arithmetic."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def compute_device() -> torch.device:
    """Return this process's GPU, by `LOCAL_RANK` where a launcher started several, or else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def resolve_precision(setting: str) -> str:
    """Replace `auto` by `bf16` where the processor multiplies bfloat16 matrices itself, else by `no`.

    On a CPU that is the AMX unit (Intel Xeon since 2023); elsewhere bfloat16 is slower than float32.

    Args:
        setting: `auto`, `no`, `bf16` or `fp16`.

    Returns:
        `no`, `bf16` or `fp16`, as `accelerate` names them.
    """
    if setting != "auto":
        return setting
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if torch.cpu.get_capabilities().get("amx_bf16", False) else "no"


def training_attention(device: torch.device) -> AbstractContextManager[None]:
    """Return a context for forward and backward passes in which attention's gradients are fast on `device`.

    On a CPU the fused backward pass of short sequences in bfloat16 takes about eight times as long as plain
    matrix products, which are used there; elsewhere PyTorch chooses.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def autocast(device: torch.device, setting: str) -> torch.autocast:
    """Return the autocast context of a resolved or unresolved setting on `device`."""
    dtypes = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    precision = resolve_precision(setting)
    return torch.autocast(device.type, dtypes[precision], enabled=precision != "no")
