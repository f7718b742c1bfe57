"""Where the networks around a video backbone meet it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Widths:
    """Channels at which other networks meet a backbone.

    Attributes:
        tokens: of condition tokens.
        features: of the features that the emotion discriminator reads.
        pose: of the pose feature.
    """

    tokens: int
    features: int
    pose: int
