"""Accuracy of the emotion discriminator by noise level, and whether it reads the picture or the condition."""

from __future__ import annotations

from typing import Any

from dicetalk.report.figure import Figure
from dicetalk.report.plots import Series, interval_lines, line_sample

CONDITIONS = {
    "told": ("told the shown emotion", "var(--series-1)", False),
    "untold": ("told nothing", "var(--ceiling)", False),
    "misled": ("told another emotion", "var(--series-2)", True),
}
FOLLOWS = ("told another emotion, answer follows what it is told", "var(--floor)", True)


def discrimination_figure(measured: dict[str, Any] | None) -> Figure | None:
    """Draw `discrimination` of `metrics/train_diffusion.json`; None where it was not measured.

    Args:
        measured: see `dicetalk.training.discrimination.discrimination_by_noise`.
    """
    if measured is None:
        return None
    sigmas = measured["sigmas"]
    curves = {CONDITIONS[name]: values for name, values in measured["emotion_accuracy"].items()}
    curves[FOLLOWS] = measured["follows_condition"]
    series = [
        Series(
            label,
            colour,
            sigmas,
            [entry["value"] for entry in values],
            [entry["ci95"][0] for entry in values],
            [entry["ci95"][1] for entry in values],
            dashed,
        )
        for (label, colour, dashed), values in curves.items()
    ]
    rows = [[label, *map(_text, values)] for (label, _, _), values in curves.items()]
    rows += [
        [f"22 classes, {CONDITIONS[name][0]}", *map(_text, values)]
        for name, values in measured["class_accuracy"].items()
    ]
    return Figure(
        "Emotion discrimination by noise level",
        "How often the classifier on the UNet's deep features names the emotion shown by"
        f" {measured['clips']} noisy clips"
        " of held-out people. The UNet is told the emotion, so the classifier may read the"
        " condition instead of the"
        " picture: told nothing, only the picture is left; told another emotion, picture and"
        " condition disagree."
        " Wilson intervals over clips.",
        [
            interval_lines(
                "Accuracy of the emotion discriminator over the noise level",
                "A line per condition; the values are in the table below.",
                series,
                x_label="noise level σ",
                limits=(0.0, 1.0),
                logarithmic=True,
                reference=(measured["chance"], "chance"),
                size=(460, 230),
            )
        ],
        ["Accuracy at σ =", *(f"{sigma:g}" for sigma in sigmas)],
        rows,
        [(line_sample(colour, dashed), label) for label, colour, dashed in curves],
    )


def _text(entry: dict[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{entry['value']:.2f} [{low:.2f}, {high:.2f}]"
