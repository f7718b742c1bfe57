"""Which arithmetic pays off on this machine."""

from __future__ import annotations

import torch


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


def autocast(device: torch.device, setting: str) -> torch.autocast:
    """Return the autocast context of a resolved or unresolved setting on `device`."""
    dtypes = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    precision = resolve_precision(setting)
    return torch.autocast(device.type, dtypes[precision], enabled=precision != "no")
