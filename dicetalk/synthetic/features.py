"""The moving features: eyes, brows, nose, mouth and the folds an expression makes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from dicetalk.synthetic.expression import FaceState
from dicetalk.synthetic.geometry import Sketch, mix, shade, smooth
from dicetalk.synthetic.identity import Colour, Identity

SCLERA: Colour = (246.0, 243.0, 240.0)
TEETH: Colour = (244.0, 240.0, 230.0)
MOUTH_INSIDE: Colour = (62.0, 16.0, 20.0)
TONGUE: Colour = (190.0, 84.0, 88.0)
BLACK: Colour = (18.0, 14.0, 16.0)
WHITE: Colour = (255.0, 255.0, 255.0)

_CIRCLE = np.stack(
    [np.cos(np.linspace(0, 2 * np.pi, 20, False)), np.sin(np.linspace(0, 2 * np.pi, 20, False))], 1
)
_ACROSS = np.linspace(-1.0, 1.0, 13)
_ARCH = 1.0 - np.abs(_ACROSS) ** 2.2
_ROUND_ARCH = _ARCH**0.7
_LIFT = np.abs(_ACROSS) ** 1.5
_DROOP = np.abs(_ACROSS) ** 2.4
_BOW = 1 - 0.18 * np.exp(-((_ACROSS / 0.22) ** 2))


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
    """Return an ellipse as a polygon (20, 2)."""
    return _CIRCLE * (radius_x, radius_y) + (x, y)


def stroke(points: np.ndarray, widths: np.ndarray | float) -> np.ndarray:
    """Return the outline of a brush stroke along `points` (n, 2) with full `widths` (n,)."""
    along = np.empty_like(points)
    along[1:-1] = points[2:] - points[:-2]
    along[0], along[-1] = points[1] - points[0], points[-1] - points[-2]
    reach = 0.5 * widths / np.sqrt(along[:, 0] ** 2 + along[:, 1] ** 2)
    outline = np.empty((2 * len(points), 2))
    across_x, across_y = along[:, 1] * reach, along[:, 0] * reach
    outline[: len(points), 0], outline[: len(points), 1] = points[:, 0] - across_x, points[:, 1] + across_y
    outline[len(points) :, 0] = (points[:, 0] + across_x)[::-1]
    outline[len(points) :, 1] = (points[:, 1] - across_y)[::-1]
    return outline


def skin_of(identity: Identity, state: FaceState) -> Colour:
    """Return the skin colour with the blood the emotion sends to it."""
    flush = float(np.clip(state.flush, -1, 1))
    tint = np.array([0.03, -0.15, -0.15]) if flush > 0 else np.array([-0.09, 0.0, 0.05])
    pale = np.array(identity.skin) * (1 + abs(flush) * tint)
    return tuple(float(value) for value in np.clip(pale, 0, 255))  # type: ignore[return-value]


def add_eyes(sketch: Sketch, identity: Identity, state: FaceState, skin: Colour) -> None:
    """Draw both eyes with their lids."""
    lid_colour = mix(shade(skin, 0.84), (150.0, 92.0, 96.0), 0.12)
    lash = mix(BLACK, identity.hair, 0.15)
    for side, lid in ((-1.0, state.lid_left), (1.0, state.lid_right)):
        width, height = identity.eye_width, identity.eye_height
        upper = height * (1 + 0.75 * lid if lid > 0 else 1 + 1.25 * max(lid, -1.0))
        lower = 0.62 * height * (1.0 - 0.75 * min(state.lid_lower, 1.0)) * (1 + 0.3 * max(lid, 0.0))
        lower = max(lower, 0.02 - upper) if upper < 0 else lower
        center = side * identity.eye_spacing
        x = center + _ACROSS * width
        axis = -identity.eye_tilt * side * _ACROSS
        top, bottom = axis - upper * _ARCH, axis + lower * _ARCH
        bottom = np.maximum(bottom, top + 0.015)
        crease = axis - (max(upper, 0.5 * height) + 0.5 * height) * _ROUND_ARCH
        sketch.add(_band(x, crease, np.maximum(top, axis)), lid_colour)
        sketch.add(_band(x, top, bottom), SCLERA)
        if upper + lower > 0.03:
            gaze_x, gaze_y = 0.3 * width * state.gaze_x, 0.3 * height * state.gaze_y
            radius = 0.125
            for scale, colour in ((1.0, shade(identity.iris, 0.6)), (0.82, identity.iris), (0.46, BLACK)):
                disc = ellipse(center + gaze_x, gaze_y - 0.02, scale * radius, scale * radius)
                sketch.add(_clipped(disc, x, top, bottom), colour)
            sketch.add(
                _clipped(ellipse(center + gaze_x - 0.04, gaze_y - 0.065, 0.03, 0.03), x, top, bottom), WHITE
            )
        thickness = 0.05 * (0.35 + 0.65 * _ARCH) * (1.15 if identity.feminine else 1.0)
        sketch.add(_band(x, top - thickness, top + 0.25 * thickness), lash)
        if identity.feminine:
            tip = np.array([(0.92, -0.01), (1.28, -0.085), (1.0, 0.015)]) * (side * width, 1.0)
            sketch.add(tip + (center, axis[-1 if side > 0 else 0]), lash)
        sketch.add(_band(x, bottom, bottom + 0.016), shade(skin, 0.66))
        bag = 0.05 + 0.05 * state.lid_lower
        sketch.add(
            _band(x, bottom + bag, bottom + bag + 0.02 * _ARCH),
            shade(skin, 0.9 - 0.14 * max(state.lid_lower, 0)),
        )


def add_brows(sketch: Sketch, identity: Identity, state: FaceState) -> None:
    """Draw both brows."""
    sides = (
        (-1.0, state.brow_inner_left, state.brow_outer_left),
        (1.0, state.brow_inner_right, state.brow_outer_right),
    )
    position = np.array([0.0, 0.3, 0.65, 1.0])
    for side, inner, outer in sides:
        start = identity.eye_spacing - identity.eye_width - 0.02 - 0.085 * state.brow_knit
        end = identity.eye_spacing + 1.25 * identity.eye_width
        lift = inner * (1 - position) ** 1.1 * np.where(inner > 0, 0.25, 0.2) + outer * position**0.9 * 0.2
        arch = identity.brow_arch * np.array([0.0, 0.75, 1.0, -0.25])
        spine = np.stack([side * (start + (end - start) * position), -identity.brow_gap - arch - lift], 1)
        widths = identity.brow_thickness * np.array([1.0, 1.15, 0.95, 0.4])
        sketch.add(
            stroke(smooth(spine, False, 4), smooth(np.stack([position, widths], 1), False, 4)[:, 1]),
            identity.brow,
        )


def add_folds(sketch: Sketch, identity: Identity, state: FaceState, skin: Colour) -> None:
    """Draw forehead lines, frown lines, nose wrinkles and the folds from nose to mouth."""
    raised = max(0.0, 0.5 * (state.brow_inner_left + state.brow_inner_right) - 0.15)
    if raised > 0.05:
        middle = 1.0 if state.brow_outer_left + state.brow_outer_right > 1.0 else 0.5
        for row in (0.0, 0.11):
            y = -identity.brow_gap - 0.3 - 0.1 * raised - row
            line = smooth([(-0.5 * middle, y + 0.03), (0.0, y), (0.5 * middle, y + 0.03)], False, 5)
            sketch.add(stroke(line, 0.026 * _taper(len(line))), shade(skin, 1 - 0.28 * min(raised, 1.0)))
    if state.brow_knit > 0.1:
        for side in (-1.0, 1.0):
            line = np.array([(side * 0.06, -0.34), (side * 0.05, -0.24), (side * 0.075, -0.13)])
            sketch.add(stroke(line, 0.035 * _taper(3)), shade(skin, 1 - 0.42 * min(state.brow_knit, 1.0)))
    if state.nose_wrinkle > 0.1:
        crinkle = shade(skin, 1 - 0.26 * min(state.nose_wrinkle, 1.0))
        for y in (0.04, 0.15):
            for side in (-1.0, 1.0):
                line = np.array([(side * 0.03, y - 0.03), (side * 0.1, y), (side * 0.16, y + 0.06)])
                sketch.add(stroke(line, 0.03 * _taper(3)), crinkle, 1.0, 0.1)
    for side, smile in ((-1.0, state.smile_left), (1.0, state.smile_right)):
        depth = max(smile, 0.0, 0.9 * state.nose_wrinkle, 0.7 * state.lip_raise)
        if depth > 0.1:
            corner = identity.mouth_width + 0.12
            y = identity.mouth_height
            start, end = (side * (identity.nose_width + 0.04), 0.5), (side * (corner + 0.03), y)
            line = smooth([start, (side * corner, y - 0.2), end], False, 4)
            sketch.add(stroke(line, 0.03 * _taper(len(line))), shade(skin, 1 - 0.3 * min(depth, 1.0)))


def add_cheeks(sketch: Sketch, state: FaceState, skin: Colour) -> None:
    """Draw raised cheeks as soft blushes."""
    if state.cheek < 0.1:
        return
    for side in (-1.0, 1.0):
        for size in (1.0, 0.8, 0.6):
            cheek = ellipse(side * 0.58, 0.4 - 0.06 * state.cheek, 0.24 * size, 0.16 * size)
            sketch.add(cheek, mix(skin, (228.0, 92.0, 84.0), (0.32 - 0.2 * size) * min(state.cheek, 1.0)))


def add_nose(sketch: Sketch, identity: Identity, state: FaceState, skin: Colour) -> None:
    """Draw the nose; it shortens when wrinkled."""
    lift = 0.06 * state.nose_wrinkle
    y, width = identity.nose_length - lift, identity.nose_width * (1 + 0.15 * state.nose_wrinkle)
    shadow, side = shade(skin, 0.82), -identity.light_side
    bridge = smooth(
        [(side * 0.07, -0.08), (side * 0.085, 0.16), (side * (width + 0.01), y - 0.03),
         (side * 0.6 * width, y + 0.05), (0.0, y + 0.06), (side * 0.05, y - 0.12)]
    )  # fmt: skip
    sketch.add(bridge, shade(skin, 0.9), 1.0, 0.12)
    base = [(-width, y - 0.04), (-0.9 * width, y + 0.035), (-0.35 * width, y + 0.05), (0.0, y + 0.075)]
    base += [(-px, py) for px, py in reversed(base[:-1])]
    line = smooth(base, False, 4)
    sketch.add(stroke(line, 0.04 * (0.5 + 0.5 * _taper(len(line)))), shadow, 1.0, 0.14)
    for x in (-1.0, 1.0):
        sketch.add(ellipse(x * 0.5 * width, y + 0.025, 0.26 * width, 0.026), shade(skin, 0.42), 1.0, 0.14)
    sketch.add(ellipse(identity.light_side * 0.03, y - 0.09, 0.05, 0.045), shade(skin, 1.1), 1.0, 0.2)


def add_mouth(sketch: Sketch, identity: Identity, state: FaceState, skin: Colour) -> None:
    """Draw lips, teeth and tongue; the jaw opens downwards, parted lips open both ways."""
    jaw, round_ = max(state.jaw, 0.0), max(state.mouth_round, 0.0)
    width = identity.mouth_width * (1 + 0.22 * state.mouth_wide - 0.42 * min(round_, 1.0) - 0.08 * jaw)
    smile = np.where(_ACROSS < 0, state.smile_left, state.smile_right)
    reach = 1 + 0.2 * np.maximum(smile, 0.0)
    x = _ACROSS * width * reach
    y = identity.mouth_height + 0.1 * jaw
    seam = y - np.where(smile > 0, 0.21 * _LIFT, 0.17 * _DROOP) * smile + 0.07 * np.maximum(smile, 0).mean()
    seam = seam - 0.09 * max(state.lip_raise, 0.0) * _ARCH
    arch = _ARCH + (_ROUND_ARCH - _ARCH) * min(round_, 1.0)
    press = 1 - 0.6 * min(max(state.lip_press, 0.0), 1.0) * (1 - min(2 * jaw, 1.0))
    opening = (
        0.46 * jaw + 0.15 * max(state.lip_part, 0.0) + 0.05 * max(state.lip_raise, 0.0) * (state.lip_part > 0)
    )
    opening *= 1 - min(max(state.lip_press, 0.0), 1.0) ** 2
    top = seam - arch * (0.28 * opening)
    bottom = seam + arch * (0.72 * opening)
    plump = identity.lip_thickness * press * (1 + 0.5 * round_ - 0.15 * max(state.mouth_wide, 0.0))
    bite = min(max(state.lip_bite, 0.0), 1.0)
    lip_top = top - plump * _BOW * (0.25 + 0.75 * _ARCH) * (_ARCH > 0)
    lip_bottom = bottom + plump * 1.25 * (1 - 0.55 * bite) * _ARCH
    lip = mix(identity.lip, (70.0, 20.0, 30.0), 0.08)
    sketch.add(_band(x, lip_bottom, lip_bottom + 0.05 * _ARCH), shade(skin, 0.86))
    sketch.add(_band(x, lip_top, seam + 0.01), shade(lip, 0.86))
    sketch.add(_band(x, seam - 0.01, lip_bottom), lip)
    shine = _ARCH * 0.22 * plump
    sketch.add(
        _band(0.6 * x, (bottom + lip_bottom) / 2 - shine, (bottom + lip_bottom) / 2 + shine), shade(lip, 1.18)
    )
    if opening > 0.02:
        sketch.add(_band(x, top, bottom), MOUTH_INSIDE)
        if jaw > 0.12:
            tongue = ellipse(0.0, float(bottom.max()), 0.6 * width, 0.3 * opening)
            sketch.add(_clipped(tongue, x, top, bottom), TONGUE)
        teeth = np.minimum(top + 0.11 * (1 - 0.6 * min(round_, 1.0)), bottom)
        sketch.add(_band(0.9 * x, top, teeth), TEETH)
    else:
        thickness = 0.022 + 0.01 * max(state.lip_press, 0.0)
        sketch.add(_band(x, seam - thickness * _ARCH, seam + thickness), shade(lip, 0.38))
    if bite > 0.05:
        edge = bottom - 0.02
        sketch.add(_band(0.75 * x, edge - 0.085 * bite * _ARCH, edge + 0.01), TEETH)
        sketch.add(_band(0.8 * x, edge, edge + 0.02 * _ARCH), shade(lip, 0.6))


def _band(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    count = len(x)
    outline = np.empty((2 * count, 2))
    outline[:count, 0], outline[:count, 1] = x, top
    outline[count:, 0], outline[count:, 1] = x[::-1], bottom[::-1]
    return outline


def _clipped(points: np.ndarray, x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Move points outside the band onto its edge, which clips a convex shape to it."""
    inside = np.empty_like(points)
    inside[:, 0] = np.minimum(np.maximum(points[:, 0], x[0]), x[-1])
    highest, lowest = np.interp(inside[:, 0], x, top), np.interp(inside[:, 0], x, bottom)
    inside[:, 1] = np.minimum(np.maximum(points[:, 1], highest), lowest)
    return inside


@lru_cache(maxsize=16)
def _taper(count: int) -> np.ndarray:
    return np.sin(np.linspace(0.15, np.pi - 0.15, count))
