"""Curves, an orthographic head projection and a sketch of polygons to fill."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from dicetalk.synthetic.expression import FaceState
from dicetalk.synthetic.identity import Colour, Identity

SUBPIXEL_BITS = 5


@dataclass(frozen=True)
class View:
    """A canvas in pixels with the head on it: `unit` pixels per half face width, eyes' midpoint at (x, y)."""

    width: int
    height: int
    unit: float
    x: float
    y: float

    def zoomed(self, factor: float) -> View:
        """Return the same picture with `factor` times the pixels per side."""
        return View(
            round(self.width * factor),
            round(self.height * factor),
            self.unit * factor,
            self.x * factor,
            self.y * factor,
        )


def smooth(points: list[tuple[float, float]] | np.ndarray, closed: bool = True, steps: int = 5) -> np.ndarray:
    """Return a Catmull-Rom curve through `points` (n, 2), `steps` samples per span."""
    points = np.asarray(points, float)
    return _spline_basis(len(points), closed, steps) @ points


@lru_cache(maxsize=128)
def _spline_basis(count: int, closed: bool, steps: int) -> np.ndarray:
    t = np.arange(steps) / steps
    blend = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], 1
    )
    spans = count if closed else count - 1
    basis = np.zeros((spans * steps + (not closed), count))
    for span in range(spans):
        for offset in range(4):
            index = span + offset - 1
            index = index % count if closed else min(max(index, 0), count - 1)
            basis[span * steps : (span + 1) * steps, index] += blend[:, offset]
    if not closed:
        basis[-1, -1] = 1.0
    return basis


def mirrored(right: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Close a right-hand outline (top to bottom) with its mirror image."""
    return right + [(-x, y) for x, y in reversed(right) if x != 0.0]


def mix(first: Colour, second: Colour, amount: float) -> Colour:
    """Blend two colours; 0 gives the first."""
    return tuple(a + (b - a) * amount for a, b in zip(first, second, strict=True))  # type: ignore[return-value]


def shade(colour: Colour, factor: float) -> Colour:
    """Scale a colour's brightness."""
    return tuple(min(255.0, value * factor) for value in colour)  # type: ignore[return-value]


class Sketch:
    """Polygons in face coordinates (x right, y down, eyes at y = 0), projected together, filled in order."""

    def __init__(self) -> None:
        """Start empty."""
        self._rings: list[np.ndarray] = []
        self._relief: list[float] = []
        self._depth: list[float] = []
        self._polygons: list[tuple[int, Colour]] = []

    def add(self, points: np.ndarray, colour: Colour, relief: float = 1.0, depth: float = 0.0) -> None:
        """Add a polygon (n, 2) lying `relief` times the head's bulge plus `depth` in front of the ears."""
        self.add_rings((points,), colour, relief, depth)

    def add_rings(
        self, rings: tuple[np.ndarray, ...], colour: Colour, relief: float = 1.0, depth: float = 0.0
    ) -> None:
        """Add an area between several outlines (even-odd rule)."""
        self._rings += rings
        self._relief += [relief] * len(rings)
        self._depth += [depth] * len(rings)
        self._polygons.append((len(rings), colour))

    def extend(self, other: Sketch) -> None:
        """Add all polygons of another sketch."""
        self._rings += other._rings
        self._relief += other._relief
        self._depth += other._depth
        self._polygons += other._polygons

    def draw(self, canvas: np.ndarray, identity: Identity, state: FaceState, view: View) -> None:
        """Fill everything added so far on `canvas` (height, width, 3)."""
        lengths = [len(ring) for ring in self._rings]
        relief, depth = np.repeat(self._relief, lengths), np.repeat(self._depth, lengths)
        pixels = project(np.concatenate(self._rings), identity, state, view, relief, depth)
        fixed = np.rint(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)
        ring, start = 0, 0
        for count, colour in self._polygons:
            outlines = []
            for length in lengths[ring : ring + count]:
                outlines.append(fixed[start : start + length])
                start += length
            ring += count
            cv2.fillPoly(canvas, outlines, colour, cv2.LINE_AA, SUBPIXEL_BITS)


def project(
    points: np.ndarray, identity: Identity, state: FaceState, view: View, relief: np.ndarray | float = 1.0,
    depth: np.ndarray | float = 0.0,
) -> np.ndarray:  # fmt: skip
    """Return the pixels (n, 2) where an orthographic camera sees face points (n, 2) of the turned head."""
    x = points[:, 0] * identity.face_width
    y = points[:, 1] * identity.face_height
    bulge = np.sqrt(np.maximum(1.0 - (points[:, 0] / 1.15) ** 2 - (points[:, 1] / 1.75) ** 2, 0.0))
    z = 0.8 * relief * bulge + depth
    pivot = 0.55  # heads nod about the neck, below the eyes
    turned_x = x * math.cos(state.yaw) + z * math.sin(state.yaw)
    turned_z = z * math.cos(state.yaw) - x * math.sin(state.yaw)
    turned_y = (y - pivot) * math.cos(state.pitch) + turned_z * math.sin(state.pitch) + pivot
    below = turned_y - 1.2
    size = view.unit * (1.0 + state.scale)
    cosine, sine = math.cos(state.roll), math.sin(state.roll)
    image_x = turned_x * cosine - below * sine + state.shift_x
    image_y = turned_x * sine + below * cosine + 1.2 + state.shift_y
    pixels = np.empty((len(points), 2))
    pixels[:, 0], pixels[:, 1] = view.x + size * image_x, view.y + size * image_y
    return pixels
