"""What the project asks of a video backbone's network: the denoiser contract.

Nothing outside of a family's own files knows its input channels, time embeddings or attention layers.
Noise levels are sigma = noise / signal everywhere, also for flow models, whose time is sigma / (1 + sigma).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from diffusers import EulerDiscreteScheduler
from torch import Tensor, nn

from dicetalk.models.backbones.files.base import BackboneFiles, Geometry
from dicetalk.models.token_sets import TokenSets
from dicetalk.models.widths import Widths


class Noise(Protocol):
    """What a network predicts, and how its input is scaled; `sigma` is a scalar or `(batch,)`."""

    def input(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Return what the network sees of clean latents and unit noise in training."""

    def target(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Return what the network should predict."""

    def scheduler(self, sigma_min: float = ..., sigma_max: float = ...) -> EulerDiscreteScheduler:
        """Return what steps through noise levels, by default those of the published model.

        Each step must be linear in the prediction.
        """

    def start(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Return the scheduler's state at the first step."""

    def state_input(self, scheduler: EulerDiscreteScheduler, state: Tensor, timestep: Tensor) -> Tensor:
        """Return what the network sees of the scheduler's state."""


class Conditions(NamedTuple):
    """What steers a forward pass: tensors as plain arguments, so that a compiler sees all of them.

    Attributes:
        portrait: clean latent of the portrait, not scaled `(batch, channels, h, w)`; zero: dropped.
        image: embedding of the portrait `(batch, tokens, dim)`; zero: dropped.
        adapted: tokens of the conditions that have adapters, in their order in `dicetalk.models.conditions`,
            each `(batch, frames or 1, tokens, dim)` or picked from sets.
        motion: frames per second, motion and expression bucket `(batch, 3)`.
        face_mask: `(batch or 1, 1, height, width)` in [0, 1] at any resolution.
        pose: pose feature `(batch, Widths.pose, h, w)`.
    """

    portrait: Tensor
    image: Tensor
    adapted: tuple[Tensor | TokenSets, ...]
    motion: Tensor
    face_mask: Tensor
    pose: Tensor


class Prediction(NamedTuple):
    """Result of a forward pass.

    Attributes:
        output: in the shape of the noisy latents, see `Noise.target`.
        features: of the middle of the network `(batch, latent frames, Widths.features, any, any)`.
    """

    output: Tensor
    features: Tensor


class Denoiser(ABC):
    """A video network under the contract; the module itself stays what is saved, moved and wrapped.

    Attributes:
        files: the other half of the family.
        network_class: of the module, a diffusers model.
        noise: its prediction type.
        network: the module.
    """

    files: ClassVar[BackboneFiles]
    network_class: ClassVar[Any]
    noise: ClassVar[Noise]

    def __init__(self, network: Any):
        self.network = network

    @classmethod
    def empty(cls, config: Mapping[str, Any]) -> Denoiser:
        """Return an untrained one on the default device; no configuration: that of the published model."""
        return cls(cls.network_class.from_config(config) if config else cls.network_class())

    @classmethod
    @abstractmethod
    def from_pretrained(cls, network: Any) -> Denoiser:
        """Return one that starts from a network as the backbone's folder has it.

        Raises:
            DicetalkError: when it is none of the family.
        """

    @property
    def widths(self) -> Widths:
        """Where other networks meet it."""
        return self.files.widths(self.network.config)

    def geometry(self, space: int) -> Geometry:
        """Return the geometry with an autoencoder that shrinks pictures by `space`."""
        return self.files.geometry(self.network.config, space)

    def predict(self, scaled: Tensor, sigma: Tensor, conditions: Conditions) -> Prediction:
        """Run the network once.

        Args:
            scaled: latents as `Noise` scales them `(batch, latent frames, channels, h, w)`.
            sigma: noise level, a scalar or `(batch,)`.
            conditions: of all samples.
        """
        return self.read(self.network(**self.inputs(scaled, sigma, conditions)))

    @abstractmethod
    def inputs(self, scaled: Tensor, sigma: Tensor, conditions: Conditions) -> dict[str, Any]:
        """Return the arguments of the network's own forward pass for those of `predict`."""

    @abstractmethod
    def read(self, output: Any) -> Prediction:
        """Return what the network's forward pass gave."""

    @abstractmethod
    def adapter_parameters(self) -> list[nn.Parameter]:
        """Return the weights that the pretrained network does not have."""

    @abstractmethod
    def unused_parameters(self) -> list[nn.Parameter]:
        """Return weights that no gradient reaches under this project's conditions."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Return the large parts, each called as a whole: full sharding gathers them one at a time."""

    @abstractmethod
    def adapter_width(self) -> int:
        """Return the widths of all layers that keep projected token sets, added up."""
