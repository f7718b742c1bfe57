"""The four files of the official release: read into our networks, and written from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_path
from dicetalk.models.state_files import check_fits, load_strictly, read_state_dict

OFFICIAL_FILES = {
    "unet": "unet.pth",
    "audio_projection": "audio_linear.pth",
    "emotion_model": "emo_model.pth",
    "pose_guider": "pose_guider.pth",
}
"""Pipeline component to file name."""


def import_official(directory: Path, modules: Mapping[str, nn.Module]) -> None:
    """Load the official files of a directory into modules.

    Args:
        directory: holds the files named in `OFFICIAL_FILES`.
        modules: any of the components `unet`, `audio_projection`, `emotion_model`, `pose_guider`.

    Raises:
        DicetalkError: for a missing file; see `read_state_dict` and `load_strictly`. All files are
            there and fit before one is loaded.
    """
    paths = {name: Path(directory) / OFFICIAL_FILES[name] for name in modules}
    if missing := [str(path) for path in paths.values() if not path.is_file()]:
        expected = ", ".join(OFFICIAL_FILES[name] for name in modules)
        raise DicetalkError(f"{missing[0]} does not exist; expected {expected}.")
    states = {name: read_state_dict(path) for name, path in paths.items()}
    for name, module in modules.items():
        check_fits(module, states[name], str(paths[name]))
    for name, module in modules.items():
        load_strictly(module, states[name], str(paths[name]))


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
