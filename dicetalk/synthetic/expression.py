"""How a procedural head looks at one instant, and what the eight emotions do to it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dicetalk.labels import class_index

LEVEL_STRENGTH = {1: 0.45, 2: 0.72, 3: 1.0}


@dataclass(frozen=True)
class FaceState:
    """Offsets from a relaxed face; 0 is neutral for every control, left and right are the viewer's.

    The controls follow facial action units (AU): muscles act in about [0, 1], two-way ones in [-1, 1].
    """

    brow_inner_left: float = 0.0  # AU1 up, AU4 down
    brow_inner_right: float = 0.0
    brow_outer_left: float = 0.0  # AU2 up
    brow_outer_right: float = 0.0
    brow_knit: float = 0.0  # AU4, brows drawn together
    lid_left: float = 0.0  # +1 wide open (AU5), -1 closed
    lid_right: float = 0.0
    lid_lower: float = 0.0  # AU7
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    cheek: float = 0.0  # AU6
    nose_wrinkle: float = 0.0  # AU9
    lip_raise: float = 0.0  # AU10
    smile_left: float = 0.0  # AU12 up, AU15 down
    smile_right: float = 0.0
    mouth_wide: float = 0.0  # AU20 stretched; negative is narrow
    mouth_round: float = 0.0  # AU18, AU22
    lip_press: float = 0.0  # AU23, AU24
    lip_part: float = 0.0  # AU25, lips apart over closed teeth
    lip_bite: float = 0.0  # lower lip under the upper teeth, as in f and v
    jaw: float = 0.0  # AU26, AU27
    flush: float = 0.0  # blood in the skin; negative is pale
    yaw: float = 0.0  # radians, positive looks to the viewer's right
    pitch: float = 0.0  # radians, positive looks down
    roll: float = 0.0  # radians, clockwise
    shift_x: float = 0.0  # half face widths
    shift_y: float = 0.0
    scale: float = 0.0  # relative growth


CONTROLS: tuple[str, ...] = tuple(field.name for field in fields(FaceState))


def _both(**values: float) -> dict[str, float]:
    """Give the same value to the left and the right control of each name."""
    return {f"{name}_{side}": value for name, value in values.items() for side in ("left", "right")}


# What each emotion does at full strength: prototypes of the facial action coding system (Ekman and Friesen),
# plus a change of skin colour (emotion shows in facial blood flow: Benitez-Quiroz et al., PNAS 2018).
PROTOTYPES: dict[str, dict[str, float]] = {
    "angry": _both(brow_inner=-1.0, brow_outer=0.1, lid=-0.05, smile=-0.35)
    | dict(brow_knit=1.0, lid_lower=0.55, nose_wrinkle=0.15, lip_press=0.85, flush=1.0, pitch=0.07),
    "contempt": dict(
        brow_inner_left=-0.35, brow_outer_left=-0.3, brow_inner_right=0.35, brow_outer_right=0.95
    )
    | dict(lid_left=-0.42, lid_right=-0.22, gaze_x=-0.3, smile_left=-0.15, smile_right=1.0, lip_press=0.3)
    | dict(pitch=-0.08, roll=0.09),
    "disgusted": _both(brow_inner=-0.75, brow_outer=-0.6, lid=-0.48, smile=-0.45)
    | dict(
        brow_knit=0.5, lid_lower=0.9, nose_wrinkle=1.0, lip_raise=1.0, lip_part=0.25, cheek=0.4, flush=-0.35
    )
    | dict(pitch=-0.03, yaw=0.06),
    "fear": _both(brow_inner=1.0, brow_outer=0.1, lid=0.85, smile=-0.5)
    | dict(brow_knit=0.9, lid_lower=0.15, mouth_wide=0.75, lip_part=0.5, flush=-1.0),
    "happy": _both(brow_inner=0.1, brow_outer=0.2, lid=-0.12, smile=1.0)
    | dict(lid_lower=0.8, cheek=1.0, mouth_wide=0.4, lip_part=0.55, flush=0.4),
    "neutral": {},
    "sad": _both(brow_inner=0.95, brow_outer=-0.6, lid=-0.5, smile=-1.0)
    | dict(brow_knit=0.45, gaze_y=0.5, flush=-0.2, pitch=0.1, roll=-0.05),
    "surprised": _both(brow_inner=1.0, brow_outer=1.1, lid=1.0) | dict(jaw=0.5, mouth_round=0.5, pitch=-0.05),
}


def emotion_targets(emotion: str, level: int) -> FaceState:
    """Return the silent face of an emotion at one of its levels.

    Raises:
        DicetalkError: for an unknown emotion or a level it does not have.
    """
    class_index(emotion, level)
    strength = LEVEL_STRENGTH[level]
    return FaceState(**{name: strength * value for name, value in PROTOTYPES[emotion].items()})
