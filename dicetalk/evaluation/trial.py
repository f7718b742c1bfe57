"""One video that is judged, and what it is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Seen(Protocol):
    """The named arrays of a measured video, listed in `dicetalk/evaluation/roles.py`."""

    path: Path

    def __contains__(self, part: str) -> bool:
        """Whether it has an array of this name."""

    def __getitem__(self, part: str) -> np.ndarray:
        """Return an array."""

    @property
    def problems(self) -> dict[str, str]:
        """Role -> why it could not be measured."""

    @property
    def details(self) -> dict[str, Any]:
        """What the clip says about itself: `identity`, `emotion`, `level`, `num_frames`."""


@dataclass(frozen=True)
class Measured:
    """A measured clip.

    Attributes:
        clip_id: name of the clip.
        identity: who is seen.
        emotion: its label, or None.
        level: 1 to 3; 0 without label.
        seen: what networks said about its frames and its sound.
    """

    clip_id: str
    identity: str
    emotion: str | None
    level: int
    seen: Seen


@dataclass(frozen=True)
class Trial:
    """One video of one system.

    Attributes:
        system: name of the system.
        real: the real clip that gives the label and the video to compare with.
        shown: the video that is judged.
        heard: the video whose sound it is judged with.
        reference: the reference image, as a video and on its own.
    """

    system: str
    real: Measured
    shown: Seen
    heard: Seen
    reference: Seen


def common(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames or windows, first axis, that two videos both have."""
    length = min(len(first), len(second))
    return first[:length], second[:length]
