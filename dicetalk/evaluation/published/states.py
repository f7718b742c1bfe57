"""Reading PyTorch weight files without running anything from them."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from dicetalk.errors import DicetalkError


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict, also out of a checkpoint's `state_dict`, without `module.` before its names.

    Nothing but tensors and plain containers is unpickled.

    Raises:
        DicetalkError: when the file holds anything else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DicetalkError(f"{path} is not a file of plain PyTorch weights: {reason}") from None
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DicetalkError(f"{path} holds no state dict, only tensors by name were expected.")
    return {name.removeprefix("module."): value for name, value in state.items()}
