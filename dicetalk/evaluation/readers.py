"""The in-domain readers, and the choice of readers for a protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dicetalk import weights
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.faces import Video
from dicetalk.evaluation.metrics.emotion import video_probabilities
from dicetalk.evaluation.networks import to_input
from dicetalk.evaluation.protocol import Definition, ReaderDefinition
from dicetalk.evaluation.reader import Parts, Reader
from dicetalk.evaluation.roles import Role
from dicetalk.evaluation.store import load_network
from dicetalk.evaluation.syncnet import audio_windows, mouth_region, video_windows
from dicetalk.files import sha256_file
from dicetalk.labels import EMOTIONS


class InDomainReader(Reader):
    """A network trained by the `evaluators` stage; it reads square face crops as `preprocess` makes them."""

    def __init__(self, kind: str, folder: Path) -> None:
        network = load_network(folder, kind)
        super().__init__(network.name, network.sha256)
        self.network: Any = network.module

    def pixels(self, video: Video) -> Tensor:
        """Return frames `(frames, 3, 64, 64)` in [-1, 1]; refuses videos that are no square crops."""
        height, width = video.frames.shape[1:3]
        if height != width:
            raise DicetalkError(
                f"{width} x {height} px; in-domain networks read square face crops as `preprocess` makes"
            )
        return to_input(video.frames)


class InDomainEmotion(InDomainReader):
    """Eight emotions."""

    emotions = EMOTIONS

    def see(self, video: Video) -> Parts:
        """Return `emotion`."""
        return {"emotion": video_probabilities(self.network(self.pixels(video)).numpy())}


class InDomainSecondEmotion(InDomainReader):
    """Eight emotions and the strength of the expression, by another architecture."""

    def see(self, video: Video) -> Parts:
        """Return `emotion_second` and `strength`."""
        logits, strengths = self.network(self.pixels(video))
        return {
            "emotion_second": video_probabilities(logits.numpy()),
            "strength": strengths.numpy().mean(dtype=np.float64),
        }


class InDomainIdentity(InDomainReader):
    """Identity of single frames."""

    def see(self, video: Video) -> Parts:
        """Return `identity`."""
        return {"identity": self.network.embed(self.pixels(video)).numpy()}


class InDomainSync(InDomainReader):
    """Lips and sound in windows of five frames."""

    def see(self, video: Video) -> Parts:
        """Return `lips`."""
        windows = video_windows(mouth_region(self.pixels(video)))
        return {"lips": self.network.embed_video(windows).numpy()}

    def hear(self, samples: np.ndarray, num_frames: int) -> Parts:
        """Return `heard`; raises `DicetalkError` when the sound is shorter than the frames."""
        return {"heard": self.network.embed_audio(audio_windows(samples, num_frames)).numpy()}


class MeshReader(Reader):
    """FaceMesh, reduced to the 68 iBUG points.

    Args:
        crops: whether frames are square face crops, which are then read at 256 px; points of other frames are
            in fractions of their longer side.
        stride: every n-th frame is read.
    """

    def __init__(self, crops: bool, stride: int) -> None:
        super().__init__("facemesh", sha256_file(weights.resolve("facemesh")))
        self.crops, self.stride = crops, stride

    def see(self, video: Video) -> Parts:
        """Return `landmarks`."""
        from dicetalk.data.landmarks import MEDIAPIPE_TO_68

        if self.crops:
            return {"landmarks": video.finder.read(video.frames[:: self.stride])}
        points = video.mesh[:: self.stride, MEDIAPIPE_TO_68]
        return {"landmarks": points / max(video.frames.shape[1:3])}


IN_DOMAIN: dict[str, type[InDomainReader]] = {
    "emotion": InDomainEmotion,
    "emotion_second": InDomainSecondEmotion,
    "identity": InDomainIdentity,
    "sync": InDomainSync,
}


def load_readers(definition: Definition, evaluators: Path) -> tuple[dict[Role, Reader], dict[Role, str]]:
    """Load the networks of a protocol.

    Args:
        definition: the protocol.
        evaluators: folder of the in-domain networks; used only by protocols that name them.

    Returns:
        Readers by role, and for roles whose published network is not here the reason.

    Raises:
        DicetalkError: when an in-domain network is missing, or not one network is here.
    """
    readers: dict[Role, Reader] = {}
    missing: dict[Role, str] = {}
    wanted = set(definition.networks.values()) - {"pixels"}
    in_domain = any(item.network.startswith("in-domain-") for item in definition.readers.values())
    for role, item in definition.readers.items():
        if role not in wanted:
            continue
        if item.network.startswith("in-domain-"):
            readers[role] = IN_DOMAIN[role](role, evaluators)
            if readers[role].name != item.network:
                raise DicetalkError(f"{evaluators} holds {readers[role].name}, not {item.network}.")
        elif item.network == "facemesh":
            readers[role] = MeshReader(in_domain, item.stride)
        else:
            try:
                readers[role] = _load_published(item)
            except DicetalkError as error:
                missing[role] = " ".join(str(error).split())
    if not readers:
        raise DicetalkError(
            "Not one network of the protocol is on this machine: " + "; ".join(missing.values())
        )
    return readers, missing


def _load_published(item: ReaderDefinition) -> Reader:
    from dicetalk.evaluation.published.load import load_reader

    reader = load_reader(item)
    if item.sha256 is not None and not reader.sha256.startswith(item.sha256):
        raise DicetalkError(f"{item.network} has sha256 {reader.sha256}, the protocol wants {item.sha256}")
    return reader
