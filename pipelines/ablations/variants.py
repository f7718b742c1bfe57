"""What each ablation leaves out, as overrides of `params.yaml`.

The paper's table 4 has two: without the emotion bank, and without the emotion prior. We take the first as
the prior projected to tokens directly, and the second as a class label in place of the learned embedding,
with the bank kept; the paper's text could not be checked for either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

BASELINE = "full"


@dataclass(frozen=True)
class Variant:
    """One ablation.

    Attributes:
        name: how it is called on the command line and in every table.
        says: what it is, for readers.
        overrides: dotted keys of `params.yaml` and their values.
        paper: the row of the paper's table 4 that it stands beside, as in `dicetalk/report/published.yaml`.
        drawn: why drawings may show no difference where real people do; a conjecture, not a result.
    """

    name: str
    says: str
    overrides: dict[str, Any] = field(default_factory=dict)
    paper: str | None = None
    drawn: str = ""


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(BASELINE, "everything, at the shortened training of all runs here", paper="full"),
        Variant(
            "no_bank",
            "the prior projected to tokens directly: no bank, no quantisation, no attention",
            {"learn_bank.use_bank": False},
            paper="without emotion bank",
            drawn="each of the 22 classes is drawn by one recipe, the same for everybody, so a prior says "
            "all there is to say and emotions have nothing to lend each other",
        ),
        Variant(
            "no_prior",
            "the class label, one-hot, in place of the learned embedding; the bank is kept",
            {"priors.source": "label"},
            paper="without emotion prior",
            drawn="a class is drawn in one way, so its label is as informative as a mean over clips; among "
            "people an emotion is shown in many ways, which a label cannot tell apart",
        ),
        Variant(
            "no_discrimination",
            "no classification of emotions during diffusion",
            {"train_diffusion.discrimination_weight": 0.0},
            drawn="the expressions are large against 64 pixels, so the velocity error alone teaches them",
        ),
        Variant(
            "no_identity_removal",
            "an embedder that is not made to forget who is speaking",
            {"train_embedder.identity_weight": 0.0},
            drawn="a class mean over all training people averages identity away before any video is made",
        ),
        Variant(
            "audio_only",
            "an embedder that only hears",
            {"train_embedder.modalities": "audio"},
            drawn="the synthetic voices change with the class by fixed rules, which real prosody does not",
        ),
        Variant(
            "video_only",
            "an embedder that only sees",
            {"train_embedder.modalities": "video"},
            drawn="landmarks of drawings carry the whole recipe of a class, so that sound has little to add",
        ),
    )
}
