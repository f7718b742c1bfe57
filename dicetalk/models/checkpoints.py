"""The four files of the official release, read strictly and safely, and written from our models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_path

OFFICIAL_FILES = {
    "unet": "unet.pth",
    "audio_projection": "audio_linear.pth",
    "emotion_model": "emo_model.pth",
    "pose_guider": "pose_guider.pth",
}
"""Pipeline component to file name."""


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from `.pth` or `.safetensors` without running any code stored in it.

    Raises:
        DicetalkError: when the file is missing, holds anything but tensors, or a tensor has non-finite
        values.
    """
    path = Path(path)
    if not path.is_file():
        raise DicetalkError(f"{path} does not exist; expected one of {', '.join(OFFICIAL_FILES.values())}.")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise DicetalkError(f"{path} is not a file of plain tensors: {error}") from error
    if not isinstance(state, dict):
        raise DicetalkError(f"{path} holds a {type(state).__name__}; expected tensors by name.")
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise DicetalkError(f"{path}: {key} is a {type(value).__name__}; expected a tensor.")
        if value.is_floating_point() and not value.isfinite().all():
            raise DicetalkError(f"{path}: {key} has NaN or infinite values.")
    return state


def load_strictly(module: nn.Module, state: Mapping[str, torch.Tensor], origin: str) -> None:
    """Copy a state dict into a module of exactly the same names and shapes.

    Args:
        module: keeps its dtype and device.
        state: tensors by name.
        origin: where the tensors come from, for error messages.

    Raises:
        DicetalkError: naming the first missing or unknown key, or the key whose shape differs.
    """
    expected = module.state_dict()
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    name = type(module).__name__
    if missing:
        raise DicetalkError(f"{origin} lacks {missing[0]} and {len(missing) - 1} more tensors of {name}.")
    if unknown:
        raise DicetalkError(
            f"{origin} has {unknown[0]} and {len(unknown) - 1} more tensors unknown to {name}."
        )
    for key, value in expected.items():
        if value.shape != state[key].shape:
            raise DicetalkError(
                f"{origin}: {key} has shape {tuple(state[key].shape)}, {name} expects {tuple(value.shape)}; "
                "the model's configuration differs from the checkpoint's."
            )
    module.load_state_dict(state)


def import_official(directory: Path, modules: Mapping[str, nn.Module]) -> None:
    """Load the official files of a directory into modules.

    Args:
        directory: holds the files named in `OFFICIAL_FILES`.
        modules: any of the components `unet`, `audio_projection`, `emotion_model`, `pose_guider`.

    Raises:
        DicetalkError: see `read_state_dict` and `load_strictly`.
    """
    for name, module in modules.items():
        path = Path(directory) / OFFICIAL_FILES[name]
        load_strictly(module, read_state_dict(path), str(path))


def export_official(directory: Path, modules: Mapping[str, nn.Module]) -> list[Path]:
    """Write modules under the official file names and tensor names, which the official code loads.

    Args:
        directory: where to write; existing files of these names are replaced.
        modules: any of the components `unet`, `audio_projection`, `emotion_model`, `pose_guider`.

    Returns:
        The written files.
    """
    paths = []
    for name, module in modules.items():
        path = Path(directory) / OFFICIAL_FILES[name]
        state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
        with atomic_path(path) as temporary:
            torch.save(state, temporary)
        paths.append(path)
    return paths
