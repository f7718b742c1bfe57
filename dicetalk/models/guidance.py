"""Classifier-free guidance over image (identity), speech, emotion and further conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dicetalk.models.conditions.table import guided

Scale = float | tuple[float, float]

Branch = tuple[str, ...]
"""An evaluation of the network: the names of the conditions it is given, in the order of guidance.

Not given means a zero image token and image latent, the audio tokens of a zero window, and the emotion tokens
of a zero prior. The face mask and its pose feature stay in every branch.
"""


@dataclass(frozen=True)
class Guidance:
    """How strongly each condition is followed; a pair is a linear ramp from the first to the last step.

    v = v_nothing + identity * (v_image - v_nothing) + audio * (v_image_audio - v_image)
        + emotion * (v_everything - v_image_audio), and so on for further conditions

    With equal audio and emotion scales this is the official formula with its joint scale, where the image +
    audio branch cancels out.

    Args:
        identity: official `ref_scale`.
        audio: official `emo_scale`.
        emotion: official `emo_scale`.
        sigmas: lowest and highest noise level that is guided, others evaluate only the fully conditioned
            branch (Kynkaanniemi et al. 2024, arXiv 2404.07724); None, as in the official code: every level.
        further: scales of other conditions by name; those of the table where one is missing.
    """

    identity: Scale = 3.0
    audio: Scale = 6.0
    emotion: Scale = 6.0
    sigmas: Sequence[float] | None = None
    further: Mapping[str, Scale] = field(default_factory=dict)

    def branch_weights(self, step: int, num_steps: int, sigma: float) -> dict[Branch, float]:
        """Return each branch's factor at a step (they sum to 1), without those whose factor is 0."""
        names = tuple(condition.name for condition in guided())
        if self.sigmas is not None and not self.sigmas[0] <= sigma <= self.sigmas[1]:
            return {names: 1.0}
        given = {"image": self.identity, "audio": self.audio, "emotion": self.emotion, **self.further}
        scales = [given.get(condition.name, condition.scale) for condition in guided()]
        factors = [1.0, *(_at_step(scale, step, num_steps) for scale in scales), 0.0]
        weights = {names[:count]: factors[count] - factors[count + 1] for count in range(len(names) + 1)}
        return {branch: weight for branch, weight in weights.items() if weight != 0}


def _at_step(scale: Scale, step: int, num_steps: int) -> float:
    if not isinstance(scale, tuple):
        return float(scale)
    first, last = scale
    return first + (last - first) * step / max(num_steps - 1, 1)
