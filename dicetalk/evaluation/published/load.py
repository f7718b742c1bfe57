"""The table of published networks: definition, reader and file of each, by its name in the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from dicetalk import weights
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.protocol import ReaderDefinition
from dicetalk.evaluation.published import readers
from dicetalk.evaluation.published.arcface import ArcFaceR50
from dicetalk.evaluation.published.emo_affectnet import EmoAffectNet
from dicetalk.evaluation.published.emotion_fan import EmotionFan
from dicetalk.evaluation.published.face_api import FaceApiExpression, FaceApiIdentity, read_manifest
from dicetalk.evaluation.published.i3d import FvdI3D
from dicetalk.evaluation.published.inception import FidInception
from dicetalk.evaluation.published.lpips import Lpips
from dicetalk.evaluation.published.readers import PublishedReader
from dicetalk.evaluation.published.states import read_state
from dicetalk.evaluation.published.syncnet_v2 import SyncNetV2
from dicetalk.files import sha256_file


@dataclass(frozen=True)
class Published:
    """One row.

    Attributes:
        network: its definition.
        reader: how it is fed.
        read: returns the tensors of its file.
        digest_of: the file that identifies an entry of several.
    """

    network: type[nn.Module]
    reader: type[PublishedReader]
    read: Callable[[Path], dict[str, Tensor]] = read_state
    digest_of: str | None = None


def _without_classifier(path: Path) -> dict[str, Tensor]:
    return {name: value for name, value in read_state(path).items() if name.startswith("features.")}


NETWORKS = {
    "alexnet": Published(Lpips, readers.LpipsReader, _without_classifier),
    "inception-fid": Published(FidInception, readers.InceptionReader),
    "i3d-fvd": Published(FvdI3D, readers.I3DReader),
    "syncnet-v2": Published(SyncNetV2, readers.SyncNetReader),
    "emo-affectnet": Published(EmoAffectNet, readers.EmoAffectNetReader),
    "emotion-fan-mead": Published(EmotionFan, readers.EmotionFanReader),
    "arcface-r50": Published(ArcFaceR50, readers.ArcFaceReader),
    "face-api-expression": Published(
        FaceApiExpression,
        readers.FaceApiExpressionReader,
        partial(read_manifest, name="face_expression_model"),
        "face_expression_model.bin",
    ),
    "face-api-identity": Published(
        FaceApiIdentity,
        readers.FaceApiIdentityReader,
        partial(read_manifest, name="face_recognition_model"),
        "face_recognition_model.bin",
    ),
}


def load_reader(item: ReaderDefinition) -> PublishedReader:
    """Load the reader of a registered network; raises `DicetalkError` when it is unknown or not here."""
    if item.network not in NETWORKS:
        raise DicetalkError(f"no reader for network {item.network!r}; known are {', '.join(NETWORKS)}")
    return NETWORKS[item.network].reader(item, *load_published(item.network))


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
