"""The carrier of the features: hair, ears, neck, skull, beard, glasses, body and soft shading."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from dicetalk.synthetic.expression import FaceState
from dicetalk.synthetic.features import ellipse, stroke
from dicetalk.synthetic.geometry import Sketch, View, mirrored, mix, shade, smooth
from dicetalk.synthetic.identity import Colour, Identity

SHADING_SIDE = 96
SHADING_REACH = 1.5
LONG_HAIR = ("bob", "long")


def dropped(points: np.ndarray, jaw: float) -> np.ndarray:
    """Move the lower face down as the jaw opens."""
    weight = np.clip((points[:, 1] - 0.45) / 0.7, 0.0, 1.0)
    return points + np.stack([np.zeros(len(points)), 0.17 * max(jaw, 0.0) * weight], 1)


def face_outline(identity: Identity, jaw: float) -> np.ndarray:
    """Return the outline of skull and jaw."""
    chin = identity.chin_length
    right = [
        (0.0, -1.22), (0.55, -1.1), (0.9, -0.68), (0.99, -0.1), (0.96, 0.35), (identity.jaw_width, 0.8),
        (identity.chin_width + 0.12, chin - 0.12), (identity.chin_width * 0.55, chin - 0.01), (0.0, chin),
    ]  # fmt: skip
    return dropped(smooth(mirrored(right)), jaw)


def add_ears(sketch: Sketch, identity: Identity, skin: Colour) -> None:
    """Draw both ears."""
    for side in (-1.0, 1.0):
        sketch.add(ellipse(side * 1.0, 0.12, 0.15, identity.ear_size), shade(skin, 0.88), 0.0, -0.05)
        sketch.add(ellipse(side * 1.01, 0.12, 0.07, identity.ear_size * 0.6), shade(skin, 0.7), 0.0, -0.05)


@lru_cache(maxsize=64)
def hair_behind(identity: Identity) -> Sketch:
    """Return what hangs behind the face: long hair, curls, a bun."""
    sketch = Sketch()
    hair = shade(identity.hair, 0.78)
    volume = identity.hair_volume
    if identity.hair_style in LONG_HAIR:
        end = 1.15 if identity.hair_style == "bob" else 2.2
        side = 1.12 + volume
        right = [
            (0.0, -1.2 - volume),
            (0.85, -0.95 - volume),
            (side, -0.1),
            (side + 0.04, end - 0.3),
            (0.8, end),
            (0.0, end),
        ]
        sketch.add(smooth(mirrored(right)), hair, 0.0, -0.35)
    if identity.hair_style == "bun":
        sketch.add(ellipse(0.0, -1.35 - volume, 0.42, 0.36), hair, 0.0, -0.1)
    if identity.hair_style == "curly":
        for angle in np.linspace(-0.25 * np.pi, 1.25 * np.pi, 13):
            x, y = np.cos(angle), np.sin(angle)
            sketch.add(
                ellipse(x * 1.02, -0.3 - y * 0.95, 0.26 + volume / 2, 0.26 + volume / 2), hair, 0.0, -0.2
            )
    return sketch


def add_head(sketch: Sketch, identity: Identity, state: FaceState, skin: Colour) -> None:
    """Draw the face's area and the beard on it."""
    sketch.add(face_outline(identity, state.jaw), skin, 0.0, 0.05)
    if identity.beard == "none":
        return
    chin, jaw_width = identity.chin_length, identity.jaw_width
    amount = 0.3 if identity.beard == "stubble" else 0.85
    colour = mix(skin, shade(identity.hair, 0.8), amount)
    y = identity.mouth_height
    if identity.beard in ("full", "stubble"):
        right = [(0.0, y + 0.16), (0.34, y + 0.1), (0.5, y - 0.12), (0.8, 0.5), (0.97, 0.12), (0.97, 0.36)]
        right += [(jaw_width + 0.01, 0.8), (identity.chin_width + 0.13, chin - 0.11), (0.0, chin + 0.03)]
        sketch.add(dropped(smooth(mirrored(right)), state.jaw), colour, 0.2, 0.05)
    if identity.beard == "goatee":
        right = [(0.0, y + 0.2), (0.2, y + 0.22), (0.24, chin - 0.1), (0.0, chin + 0.03)]
        sketch.add(dropped(smooth(mirrored(right)), state.jaw), colour, 0.8, 0.0)
    lift = -0.05 * state.lip_raise
    right = [
        (0.0, y - 0.24 + lift),
        (0.22, y - 0.22 + lift),
        (0.42, y - 0.06),
        (0.4, y + 0.02),
        (0.0, y - 0.1 + lift),
    ]
    sketch.add(smooth(mirrored(right)), colour, 1.0, 0.05)


@lru_cache(maxsize=64)
def hair_above(identity: Identity) -> Sketch:
    """Return the hair over the forehead."""
    sketch = Sketch()
    style, volume, line = identity.hair_style, identity.hair_volume, identity.hairline
    if style == "bald":
        return sketch
    colour = identity.hair
    if style == "buzz":
        colour, volume = mix(identity.skin, identity.hair, 0.7), 0.04
    top = [(1.02, -0.12), (1.04 + volume * 0.6, -0.5), (0.8 + volume * 0.6, -1.0 - volume * 0.7)]
    crown = [(0.42, -1.2 - volume), (0.0, -1.24 - volume), (-0.42, -1.2 - volume)]
    left = [(-x, y) for x, y in reversed(top)]
    fronts = {
        "fringe": [(-0.86, -0.42), (-0.5, -0.52), (0.0, -0.55), (0.5, -0.52), (0.86, -0.42)],
        "side_part": [
            (-0.88, -0.4),
            (-0.72, -0.66),
            (-0.35, line - 0.12),
            (0.35, line + 0.16),
            (0.88, -0.36),
        ],
        "quiff": [(-0.9, -0.4), (-0.76, -0.72), (0.0, line - 0.06), (0.76, -0.72), (0.9, -0.4)],
        "long": [(-0.92, -0.1), (-0.76, -0.56), (-0.1, line - 0.16), (0.6, line + 0.26), (0.92, -0.1)],
        "bob": [(-0.92, 0.1), (-0.78, -0.5), (0.0, line + 0.1), (0.78, -0.5), (0.92, 0.1)],
    }
    front = fronts.get(style, [(-0.88, -0.4), (-0.74, -0.7), (0.0, line), (0.74, -0.7), (0.88, -0.4)])
    if style == "quiff":
        crown = [(0.42, -1.34 - 1.3 * volume), (-0.1, -1.36 - 1.5 * volume), (-0.5, -1.22 - volume)]
    sketch.add(smooth(top + crown + left + front), colour, 0.45, 0.02)
    gloss = smooth([(-0.5, -1.02), (0.0, -1.12), (0.5, -1.02), (0.0, -1.05)])
    sketch.add(gloss + (0.15 * identity.light_side, -0.4 * volume), shade(colour, 1.25), 0.45, 0.02)
    return sketch


@lru_cache(maxsize=64)
def glasses(identity: Identity) -> Sketch:
    """Return thin spectacle frames, open enough to leave lids and brows readable."""
    sketch = Sketch()
    if identity.glasses == "none":
        return sketch
    for side in (-1.0, 1.0):
        x = side * identity.eye_spacing
        if identity.glasses == "round":
            rings = (ellipse(x, 0.03, 0.36, 0.31), ellipse(x, 0.03, 0.325, 0.275))
        else:
            corners = np.array([(-0.36, -0.24), (0.36, -0.24), (0.35, 0.27), (-0.35, 0.27)])
            rings = (corners + (x, 0.02), corners * 0.9 + (x, 0.02))
        sketch.add_rings(rings, identity.glasses_colour, 1.0, 0.12)
        temple = np.array([(side * 0.8, -0.06), (side * 1.0, -0.02), (side * 1.0, 0.03), (side * 0.8, 0.0)])
        sketch.add(temple, identity.glasses_colour, 0.6, 0.08)
    bridge = np.array([(-0.1, -0.05), (0.1, -0.05), (0.1, 0.0), (-0.1, 0.0)])
    sketch.add(bridge, identity.glasses_colour, 1.0, 0.14)
    return sketch


def add_neck(sketch: Sketch, identity: Identity, skin: Colour) -> None:
    """Draw the neck, whose top follows the head."""
    width = 0.5 if identity.feminine else 0.62
    right = [(width, 0.4), (width + 0.02, 1.4), (width + 0.2, 2.7)]
    sketch.add(np.array(mirrored(right)), shade(skin, 0.82), 0.0, -0.2)


@lru_cache(maxsize=64)
def body(identity: Identity) -> Sketch:
    """Return the shoulders, drawn with a resting state because they do not follow the head."""
    sketch = Sketch()
    width, low = identity.shoulder_width, 2.0 + identity.neckline
    right = [
        (0.0, low),
        (0.3, low - 0.16),
        (0.66, 1.56),
        (1.1, 1.76),
        (width, 2.0),
        (width + 0.25, 2.8),
        (width + 0.2, 4.4),
    ]
    sketch.add(smooth(mirrored([*right, (0.0, 4.4)])), identity.clothes, 0.0, -0.3)
    edge = [(0.7, 1.54), (0.32, low - 0.16), (0.0, low), (-0.32, low - 0.16), (-0.7, 1.54)]
    sketch.add(stroke(smooth(edge, False), 0.12), identity.collar, 0.0, -0.3)
    return sketch


@lru_cache(maxsize=64)
def backdrop(identity: Identity, view: View) -> np.ndarray:
    """Return the background as uint8 (height, width, 3)."""
    top, bottom = np.array(identity.background_top), np.array(identity.background_bottom)
    ramp = np.linspace(0, 1, view.height)[:, None]
    rows = np.rint(top * (1 - ramp) + bottom * ramp).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(rows[:, None], view.width, 1))


@lru_cache(maxsize=64)
def shading(identity: Identity) -> np.ndarray:
    """Return light and shadow over the face as uint8 factors (96, 96, 3); 128 is 1."""
    axis = (np.arange(SHADING_SIDE) + 0.5) / SHADING_SIDE * 2 * SHADING_REACH - SHADING_REACH
    x, y = np.meshgrid(axis, axis)
    light = np.ones((SHADING_SIDE, SHADING_SIDE, 3))

    def spot(cx: float, cy: float, rx: float, ry: float, change: tuple[float, float, float]) -> None:
        falloff = np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)
        light[...] *= 1 + falloff[..., None] * np.array(change)

    grey = lambda value: (value, value, value)  # noqa: E731
    spot(identity.light_side * 0.3, -0.5, 0.55, 0.4, grey(0.1))
    spot(-identity.light_side * 0.86, 0.3, 0.28, 0.75, grey(-0.2))
    spot(identity.light_side * 0.9, 0.4, 0.16, 0.6, grey(-0.08))
    spot(0.0, 0.2, 0.09, 0.3, grey(0.09))
    spot(0.0, 1.3, 0.4, 0.12, grey(-0.1))
    spot(0.0, 1.08, 0.2, 0.1, grey(0.06))
    for side in (-1.0, 1.0):
        spot(side * identity.eye_spacing, -0.06, 0.3, 0.17, (-0.13, -0.17, -0.17))
        spot(side * 0.55, 0.46, 0.24, 0.2, (0.04, -0.09, -0.07))
    return np.clip(np.rint(128 * light), 0, 255).astype(np.uint8)


def apply_shading(canvas: np.ndarray, identity: Identity, anchors: np.ndarray) -> None:
    """Multiply the shading onto `canvas`; `anchors` (3, 2) are the pixels of (0, 0), (1, 0) and (0, 1)."""
    reach = SHADING_REACH * np.abs(anchors[1:] - anchors[0]).sum(0)
    left, top = np.maximum(anchors[0] - reach, 0).astype(int)
    right, bottom = np.maximum(anchors[0] + reach + 1, 0).astype(int)
    part = canvas[top:bottom, left:right]
    if part.size == 0:
        return
    middle = SHADING_SIDE / 2
    unit = middle / SHADING_REACH
    source = np.array([(middle, middle), (middle + unit, middle), (middle, middle + unit)], np.float32)
    matrix = cv2.getAffineTransform(source, (anchors - (left, top)).astype(np.float32))
    size = (part.shape[1], part.shape[0])
    field = cv2.warpAffine(
        shading(identity), matrix, size, borderMode=cv2.BORDER_CONSTANT, borderValue=(128,) * 3
    )
    canvas[top:bottom, left:right] = cv2.multiply(part, field, scale=1 / 128)
