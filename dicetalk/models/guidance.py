"""Classifier-free guidance over image (identity), speech and emotion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

Scale = float | tuple[float, float]


class Branch(Enum):
    """A UNet evaluation; the value says which of (image, audio, emotion) it is conditioned on.

    Unconditioned means a zero image token and image latent, the audio tokens of a zero window, and the
    emotion tokens of a zero prior. The face mask and its pose feature stay in every branch.
    """

    NOTHING = (False, False, False)
    IMAGE = (True, False, False)
    IMAGE_AUDIO = (True, True, False)
    EVERYTHING = (True, True, True)


@dataclass(frozen=True)
class Guidance:
    """How strongly each condition is followed; a pair is a linear ramp from the first to the last step.

    v = v_nothing + identity * (v_image - v_nothing) + audio * (v_image_audio - v_image)
        + emotion * (v_everything - v_image_audio)

    With equal audio and emotion scales this is the official formula with its joint scale, where the image +
    audio branch cancels out.

    Args:
        identity: official `ref_scale`.
        audio: official `emo_scale`.
        emotion: official `emo_scale`.
        sigmas: lowest and highest noise level that is guided, others evaluate only the fully conditioned
            branch (Kynkaanniemi et al. 2024, arXiv 2404.07724); None, as in the official code: every level.
    """

    identity: Scale = 3.0
    audio: Scale = 6.0
    emotion: Scale = 6.0
    sigmas: Sequence[float] | None = None

    def branch_weights(self, step: int, num_steps: int, sigma: float) -> dict[Branch, float]:
        """Return each branch's factor at a step (they sum to 1), without those whose factor is 0."""
        if self.sigmas is not None and not self.sigmas[0] <= sigma <= self.sigmas[1]:
            return {Branch.EVERYTHING: 1.0}
        identity, audio, emotion = (
            _at_step(s, step, num_steps) for s in (self.identity, self.audio, self.emotion)
        )
        weights = {
            Branch.NOTHING: 1.0 - identity,
            Branch.IMAGE: identity - audio,
            Branch.IMAGE_AUDIO: audio - emotion,
            Branch.EVERYTHING: emotion,
        }
        return {branch: weight for branch, weight in weights.items() if weight != 0}


def _at_step(scale: Scale, step: int, num_steps: int) -> float:
    if not isinstance(scale, tuple):
        return float(scale)
    first, last = scale
    return first + (last - first) * step / max(num_steps - 1, 1)
