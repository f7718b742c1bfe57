"""Who a procedural head is: everything about it that does not move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]

SKIN_TONES = np.array(
    [
        (250, 222, 203),
        (241, 205, 178),
        (228, 184, 150),
        (206, 156, 120),
        (176, 122, 86),
        (138, 92, 64),
        (104, 68, 48),
    ],
    float,
)
HAIR_COLOURS = np.array(
    [(28, 24, 26), (58, 38, 28), (98, 62, 38), (150, 104, 60), (216, 178, 110), (168, 76, 38),
     (150, 148, 150), (225, 222, 218), (60, 78, 150), (190, 80, 130), (44, 120, 110)], float,
)  # fmt: skip
HAIR_WEIGHTS = np.array([5, 5, 4, 3, 4, 3, 2, 1.5, 1, 1, 1])
IRIS_COLOURS = np.array(
    [(70, 44, 28), (98, 66, 36), (64, 104, 150), (84, 126, 92), (110, 122, 130), (40, 34, 34)], float
)
HAIR_STYLES = ("bald", "buzz", "short", "side_part", "fringe", "quiff", "curly", "bob", "long", "bun")
FEMININE_WEIGHTS = np.array([0.1, 0.3, 0.7, 1, 1.5, 0.3, 1.3, 2, 2.5, 2])
MASCULINE_WEIGHTS = np.array([1.3, 1.5, 2, 2, 1, 2, 1, 0.3, 0.3, 0.2])
BEARDS = ("none", "moustache", "goatee", "full", "stubble")


@dataclass(frozen=True)
class Identity:
    """Geometry (in half face widths), colours (RGB, 0-255) and voice of one procedural person."""

    feminine: bool
    face_width: float
    face_height: float
    jaw_width: float
    chin_width: float
    chin_length: float
    ear_size: float
    eye_spacing: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    brow_thickness: float
    brow_gap: float
    brow_arch: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_height: float
    lip_thickness: float
    hair_style: str
    hair_volume: float
    hairline: float
    beard: str
    glasses: str
    skin: Colour
    hair: Colour
    brow: Colour
    lip: Colour
    iris: Colour
    glasses_colour: Colour
    clothes: Colour
    collar: Colour
    neckline: float
    shoulder_width: float
    background_top: Colour
    background_bottom: Colour
    light_side: float
    voice_pitch: float


def sample_identity(rng: np.random.Generator, feminine: bool | None = None) -> Identity:
    """Draw one person; equal generator states give equal persons.

    Args:
        rng: source of all randomness.
        feminine: fixes the presentation (face shape, hair, voice); drawn when missing.
    """
    drawn = bool(rng.random() < 0.5)
    feminine = drawn if feminine is None else feminine
    soft = 1.0 if feminine else 0.0
    skin = _along(SKIN_TONES, rng.beta(0.9, 1.3)) + rng.normal(0, 5, 3)
    hair = HAIR_COLOURS[rng.choice(len(HAIR_COLOURS), p=HAIR_WEIGHTS / HAIR_WEIGHTS.sum())] + rng.normal(
        0, 8, 3
    )
    weights = FEMININE_WEIGHTS if feminine else MASCULINE_WEIGHTS
    beard = "none" if feminine else str(rng.choice(BEARDS, p=[0.5, 0.12, 0.1, 0.16, 0.12]))
    background = _vivid(rng, 0.1, 0.5, 0.45, 0.95)
    return Identity(
        feminine=feminine,
        face_width=rng.uniform(0.9, 1.08),
        face_height=rng.uniform(0.93, 1.09),
        jaw_width=rng.uniform(0.7, 0.93) - 0.07 * soft,
        chin_width=rng.uniform(0.24, 0.5) - 0.06 * soft,
        chin_length=rng.uniform(1.2, 1.36),
        ear_size=rng.uniform(0.2, 0.32),
        eye_spacing=rng.uniform(0.39, 0.48),
        eye_width=rng.uniform(0.225, 0.285) + 0.015 * soft,
        eye_height=rng.uniform(0.11, 0.15) + 0.012 * soft,
        eye_tilt=rng.uniform(-0.03, 0.05),
        brow_thickness=rng.uniform(0.05, 0.1) - 0.02 * soft,
        brow_gap=rng.uniform(0.27, 0.33),
        brow_arch=rng.uniform(0.02, 0.1),
        nose_length=rng.uniform(0.46, 0.6),
        nose_width=rng.uniform(0.15, 0.24) - 0.02 * soft,
        mouth_width=rng.uniform(0.35, 0.46),
        mouth_height=rng.uniform(0.83, 0.9),
        lip_thickness=rng.uniform(0.05, 0.1) + 0.015 * soft,
        hair_style=str(rng.choice(HAIR_STYLES, p=weights / weights.sum())),
        hair_volume=rng.uniform(0.12, 0.3),
        hairline=rng.uniform(-0.98, -0.76),
        beard=beard,
        glasses=str(rng.choice(("none", "round", "square"), p=[0.72, 0.14, 0.14])),
        skin=_colour(skin),
        hair=_colour(hair),
        brow=_colour(0.55 * np.minimum(hair, skin) + 0.1 * skin),
        lip=_colour(_lip(skin, rng, soft)),
        iris=_colour(IRIS_COLOURS[rng.integers(len(IRIS_COLOURS))] + rng.normal(0, 8, 3)),
        glasses_colour=_colour(_vivid(rng, 0.0, 0.8, 0.08, 0.45)),
        clothes=_colour(_vivid(rng, 0.15, 0.85, 0.2, 0.9)),
        collar=_colour(_vivid(rng, 0.0, 0.6, 0.3, 1.0)),
        neckline=rng.uniform(0.0, 0.5),
        shoulder_width=rng.uniform(1.55, 1.95) - 0.15 * soft,
        background_top=_colour(background),
        background_bottom=_colour(background * rng.uniform(0.6, 0.85)),
        light_side=float(rng.choice([-1.0, 1.0])),
        voice_pitch=float(np.clip(rng.normal(62 if feminine else 30, 8), 10, 85)),
    )


def _along(palette: np.ndarray, position: float) -> np.ndarray:
    axis = np.arange(len(palette))
    return np.array(
        [np.interp(position * (len(palette) - 1), axis, palette[:, channel]) for channel in range(3)]
    )


def _vivid(rng: np.random.Generator, low_s: float, high_s: float, low_v: float, high_v: float) -> np.ndarray:
    """Return a random RGB colour of given saturation and brightness ranges (HSV)."""
    hue, saturation, value = rng.uniform(0, 6), rng.uniform(low_s, high_s), rng.uniform(low_v, high_v)
    wheel = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return 255 * value * (1 - saturation + saturation * wheel)


def _lip(skin: np.ndarray, rng: np.random.Generator, soft: float) -> np.ndarray:
    natural = skin * np.array([0.86, 0.6, 0.6])
    painted = np.array([rng.uniform(140, 205), rng.uniform(30, 70), rng.uniform(55, 100)])
    amount = soft * rng.choice([0.0, 0.35, 0.8])
    return natural * (1 - amount) + painted * amount


def _colour(rgb: np.ndarray) -> Colour:
    return tuple(float(value) for value in np.clip(rgb, 0, 255))  # type: ignore[return-value]
