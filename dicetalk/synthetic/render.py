"""From an identity and a face state to pixels."""

from __future__ import annotations

import cv2
import numpy as np

from dicetalk.synthetic import features, figure
from dicetalk.synthetic.expression import FaceState
from dicetalk.synthetic.geometry import Sketch, View, project
from dicetalk.synthetic.identity import Identity

SUPERSAMPLING = 2


def portrait_view(size: int) -> View:
    """Return the square portrait framing: the head fills half the width, shoulders show."""
    return View(size, size, 0.25 * size, 0.5 * size, 0.46 * size)


def render_view(identity: Identity, state: FaceState, view: View) -> np.ndarray:
    """Return the head as seen in `view`, as uint8 RGB of shape (height, width, 3)."""
    fine = view.zoomed(SUPERSAMPLING)
    canvas = figure.backdrop(identity, fine).copy()
    skin = features.skin_of(identity, state)
    behind = Sketch()
    behind.extend(figure.hair_behind(identity))
    figure.add_neck(behind, identity, skin)
    behind.draw(canvas, identity, state, fine)
    figure.body(identity).draw(canvas, identity, FaceState(shift_x=0.3 * state.shift_x), fine)
    head = Sketch()
    figure.add_ears(head, identity, skin)
    figure.add_head(head, identity, state, skin)
    features.add_cheeks(head, state, skin)
    head.draw(canvas, identity, state, fine)
    corners = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
    figure.apply_shading(canvas, identity, project(corners, identity, state, fine, 0.0, 0.5))
    front = Sketch()
    features.add_folds(front, identity, state, skin)
    features.add_eyes(front, identity, state, skin)
    features.add_mouth(front, identity, state, skin)
    features.add_nose(front, identity, state, skin)
    front.extend(figure.hair_above(identity))
    features.add_brows(front, identity, state)
    front.extend(figure.glasses(identity))
    front.draw(canvas, identity, state, fine)
    return cv2.resize(canvas, (view.width, view.height), interpolation=cv2.INTER_AREA)


def view_box(identity: Identity, state: FaceState, view: View) -> tuple[float, float, float, float]:
    """Return (x, y, width, height) of the face in pixels of `view`, about the box a face detector gives."""
    x, y = project(np.array([(0.0, 0.47)]), identity, state, view)[0]
    side = 1.97 * view.unit * (1 + state.scale)
    return float(x - side / 2), float(y - side / 2), float(side), float(side)
