"""How a head moves over time: idle motion, babbling, speech articulation, and their blend with an emotion.

Motion maps control names of `FaceState` to offsets of shape (num_frames,); names left out do not move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import gaussian_filter1d

from dicetalk.synthetic.expression import CONTROLS, FaceState
from dicetalk.synthetic.visemes import Phoneme, viseme_track

Motion = dict[str, np.ndarray]

BLINK_SECONDS = 0.24
SYLLABLE_SECONDS = (0.13, 0.3)
BABBLE_SOUNDS = ("ɑ", "a", "ɛ", "i", "o", "u", "ə", "m", "b", "f", "s", "w", "t", "l", "")

# While a sound is made, it owns these controls; an emotion may only tint them by this much.
EMOTION_SHARE_IN_SPEECH = {
    "jaw": 0.1, "mouth_round": 0.15, "mouth_wide": 0.45, "lip_press": 0.15, "lip_part": 0.25, "lip_bite": 0.0,
    "smile_left": 0.8, "smile_right": 0.8, "lip_raise": 0.7,
}  # fmt: skip


def idle_motion(rng: np.random.Generator, num_frames: int, fps: float) -> Motion:
    """Return smooth head motion, blinks and gaze shifts."""
    blinks = _blinks(rng, num_frames, fps)
    motion = {
        "yaw": 0.09 * _drift(rng, num_frames, fps, 0.8),
        "pitch": 0.05 * _drift(rng, num_frames, fps, 0.6),
        "roll": 0.04 * _drift(rng, num_frames, fps, 0.9),
        "shift_x": 0.035 * _drift(rng, num_frames, fps, 0.9),
        "shift_y": 0.025 * _drift(rng, num_frames, fps, 0.7),
        "scale": 0.012 * _drift(rng, num_frames, fps, 1.2),
        "gaze_x": _glances(rng, num_frames, fps),
        "gaze_y": 0.4 * _glances(rng, num_frames, fps),
        "lid_left": -2.2 * blinks,  # enough to close lids an emotion holds wide open
        "lid_right": -2.2 * blinks,
        "brow_inner_left": 0.05 * _drift(rng, num_frames, fps, 0.4),
    }
    return {**motion, "brow_inner_right": motion["brow_inner_left"]}


def babble(rng: np.random.Generator, num_frames: int, fps: float) -> Motion:
    """Return the mouth of somebody saying random syllables with pauses."""
    phonemes, clock, duration = [], -0.3, num_frames / fps + 0.3
    while clock < duration:
        length = rng.uniform(*SYLLABLE_SECONDS) / 2
        sound = str(rng.choice(BABBLE_SOUNDS))
        if sound == "":
            length *= 2.5
        phonemes.append(Phoneme(sound, clock, clock + length))
        clock += length
    return speech_articulation(phonemes, num_frames, fps)


def speech_articulation(phonemes: Sequence[Phoneme], num_frames: int, fps: float) -> Motion:
    """Return the mouth saying timed IPA phonemes; frame i shows the time (i + 0.5) / fps.

    The extra name `voice` (in [0, 1]) tells how much the frame belongs to speech; `compose` uses it to keep
    the sound readable under an emotion.
    """
    return viseme_track(phonemes, num_frames, fps)


def compose(
    target: FaceState, *motions: Mapping[str, np.ndarray], seed: int | None = None
) -> list[FaceState]:
    """Blend an emotion, held at constant strength with a small slow modulation, with any motions.

    Args:
        target: what the face shows when it is still, see `emotion_targets`.
        motions: idle motion, articulation...; all of the same length.
        seed: varies the modulation of the emotion's strength; none when missing.
    """
    num_frames = len(next(iter(motions[0].values())))
    strength = np.ones(num_frames)
    if seed is not None:
        strength += 0.05 * _drift(np.random.default_rng([seed, 17]), num_frames, 25.0, 0.5)
    held = {name: getattr(target, name) * strength for name in CONTROLS}
    return blend(held, *motions)


def blend(held: Mapping[str, np.ndarray], *motions: Mapping[str, np.ndarray]) -> list[FaceState]:
    """Add motions to a held expression given as one track per control; speech takes the mouth over."""
    num_frames = len(next(iter(held.values())))
    voice = sum((motion["voice"] for motion in motions if "voice" in motion), np.zeros(num_frames))
    tracks = {name: np.array(held.get(name, np.zeros(num_frames)), float) for name in CONTROLS}
    for name, share in EMOTION_SHARE_IN_SPEECH.items():
        tracks[name] *= 1 - (1 - share) * np.minimum(voice, 1)
    for motion in motions:
        for name, offset in motion.items():
            if name != "voice":
                tracks[name] += offset
    rows = np.stack([tracks[name] for name in CONTROLS], 1).tolist()
    return [FaceState(*row) for row in rows]


def _drift(rng: np.random.Generator, num_frames: int, fps: float, seconds: float) -> np.ndarray:
    """Return smooth noise of about unit deviation that changes over `seconds`."""
    sigma = seconds * fps / 2
    margin = int(4 * sigma) + 1
    noise = gaussian_filter1d(rng.standard_normal(num_frames + 2 * margin), sigma)[
        margin : margin + num_frames
    ]
    return np.clip(noise * np.sqrt(2 * np.sqrt(np.pi) * sigma), -2.2, 2.2)


def _blinks(rng: np.random.Generator, num_frames: int, fps: float) -> np.ndarray:
    seconds = (np.arange(num_frames) + 0.5) / fps
    closed = np.zeros(num_frames)
    clock = rng.uniform(0.1, 3.0)
    while clock < num_frames / fps + BLINK_SECONDS:
        closed = np.maximum(closed, np.clip(1.25 - 2.5 * np.abs(seconds - clock) / BLINK_SECONDS, 0, 1))
        clock += rng.uniform(1.8, 4.5)
    return closed


def _glances(rng: np.random.Generator, num_frames: int, fps: float) -> np.ndarray:
    """Return gaze that rests on the camera and now and then jumps aside."""
    gaze, frame = np.zeros(num_frames), 0
    while frame < num_frames:
        hold = int(fps * rng.uniform(0.5, 1.8)) + 1
        gaze[frame : frame + hold] = rng.normal(0, 0.5) if rng.random() < 0.35 else rng.normal(0, 0.08)
        frame += hold
    return gaussian_filter1d(np.clip(gaze, -1, 1), 0.03 * fps, mode="nearest")
