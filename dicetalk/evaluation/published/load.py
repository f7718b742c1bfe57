"""Reading published weight files, by their name in the registry, into the definitions of this package."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from dicetalk import weights
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.published.arcface import ArcFaceR50
from dicetalk.evaluation.published.emo_affectnet import EmoAffectNet
from dicetalk.evaluation.published.emotion_fan import EmotionFan
from dicetalk.evaluation.published.face_api import FaceApiExpression, FaceApiIdentity, read_manifest
from dicetalk.evaluation.published.i3d import FvdI3D
from dicetalk.evaluation.published.inception import FidInception
from dicetalk.evaluation.published.syncnet_v2 import SyncNetV2
from dicetalk.files import sha256_file


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


@dataclass(frozen=True)
class Published:
    """How the weights of a registry entry become a network."""

    network: type[nn.Module]
    read: Callable[[Path], dict[str, Tensor]] = read_state
    digest_of: str | None = None  # the file that identifies an entry of several


NETWORKS = {
    "inception-fid": Published(FidInception),
    "i3d-fvd": Published(FvdI3D),
    "syncnet-v2": Published(SyncNetV2),
    "emo-affectnet": Published(EmoAffectNet),
    "emotion-fan-mead": Published(EmotionFan),
    "arcface-r50": Published(ArcFaceR50),
    "face-api-expression": Published(
        FaceApiExpression, partial(read_manifest, name="face_expression_model"), "face_expression_model.bin"
    ),
    "face-api-identity": Published(
        FaceApiIdentity, partial(read_manifest, name="face_recognition_model"), "face_recognition_model.bin"
    ),
}


def load_published(name: str) -> tuple[nn.Module, str]:
    """Return a network in evaluation mode and the sha256 of its weights.

    Raises:
        DicetalkError: when the weights are not here, or have other tensors than the network.
    """
    published = NETWORKS[name]
    path = weights.resolve(name)
    network = published.network()
    state = published.read(path)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise DicetalkError(f"{path} does not fit {name}: {str(error).strip()}") from None
    digest = sha256_file(path / published.digest_of if published.digest_of else path)
    return network.eval().requires_grad_(False), digest
