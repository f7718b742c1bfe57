"""Reading published weight files, by their name in the registry, into the definitions of this package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from dicetalk import weights
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.published.arcface import ArcFaceR50
from dicetalk.evaluation.published.emo_affectnet import EmoAffectNet
from dicetalk.evaluation.published.emotion_fan import EmotionFan
from dicetalk.evaluation.published.face_api import FaceApiExpression, FaceApiIdentity, read_manifest
from dicetalk.evaluation.published.i3d import FvdI3D
from dicetalk.evaluation.published.inception import FidInception
from dicetalk.evaluation.published.lpips import Lpips
from dicetalk.evaluation.published.states import read_state
from dicetalk.evaluation.published.syncnet_v2 import SyncNetV2
from dicetalk.files import sha256_file


@dataclass(frozen=True)
class Published:
    """How the weights of a registry entry become a network."""

    network: type[nn.Module]
    read: Callable[[Path], dict[str, Tensor]] = read_state
    digest_of: str | None = None  # the file that identifies an entry of several


def _without_classifier(path: Path) -> dict[str, Tensor]:
    return {name: value for name, value in read_state(path).items() if name.startswith("features.")}


NETWORKS = {
    "alexnet": Published(Lpips, _without_classifier),
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
