"""What the project asks of a backbone's folder: its networks, their widths, its autoencoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from dicetalk.errors import DicetalkError
from dicetalk.models.widths import Widths


@dataclass(frozen=True)
class Geometry:
    """How video becomes latents.

    Attributes:
        channels: of a latent.
        space: pixels per latent, along each side.
        time: video frames per latent frame; 1 for an image autoencoder, all that training takes so far.
        size_multiple: what sides of pictures must be multiples of.
        window_frames: latent frames that the network was trained to see together.
    """

    channels: int
    space: int
    time: int
    size_multiple: int
    window_frames: int


class Codec(Protocol):
    """The autoencoder of a backbone.

    Attributes:
        autoencoder: the module.
    """

    autoencoder: Any

    def encode(self, pixels: Tensor) -> Tensor:
        """Return latents, scaled for the network `(latent frames, channels, h, w)`.

        Args:
            pixels: `(video frames, 3, height, width)` in [-1, 1].
        """

    def portrait(self, latents: Tensor) -> Tensor:
        """Return what the network is conditioned on of a picture's encoded latents."""


class BackboneFiles(ABC):
    """What lies in the folder of a backbone.

    Attributes:
        components: known classes of each network, by subfolder.
        denoiser: subfolder of the network that `Denoiser` stands for.
    """

    components: ClassVar[Mapping[str, tuple[type, ...]]]
    denoiser: ClassVar[str]

    @abstractmethod
    def widths(self, config: Mapping[str, Any]) -> Widths:
        """Return the widths that a denoiser's configuration states."""

    @abstractmethod
    def geometry(self, config: Mapping[str, Any], space: int) -> Geometry:
        """Return the geometry of a denoiser's configuration and an autoencoder that shrinks by `space`."""

    @abstractmethod
    def codec(self, autoencoder: Any) -> Codec:
        """Return the autoencoder under the contract."""

    def known(self, component: str, name: str, folder: Path) -> type:
        """Return the class of a network by its name.

        Raises:
            DicetalkError: when the family has no such class.
        """
        classes = {cls.__name__: cls for cls in self.components[component]}
        if name not in classes:
            raise DicetalkError(f"{folder} holds {name}; expected {' or '.join(classes)}.")
        return classes[name]
