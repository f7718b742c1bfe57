"""How emotions use the bank: which codes they choose, and how alike they read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from dicetalk.labels import EMOTIONS
from dicetalk.report.figure import Figure, described_svg


def bank_usage(path: Path) -> Figure | None:
    """Draw `models/bank/code_usage.parquet`; None where there is none, as in a model without a bank.

    Args:
        path: the table, see `dicetalk.training.bank_usage.usage_by_emotion`.
    """
    if not path.is_file():
        return None
    counts = pd.read_parquet(path).pivot(index="emotion", columns="code", values="count").loc[list(EMOTIONS)]
    shares = counts.to_numpy(float) / np.maximum(counts.to_numpy(float).sum(axis=1, keepdims=True), 1)
    order = code_order(shares)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)
    used = counts.to_numpy() > 0
    rows = []
    for number, emotion in enumerate(EMOTIONS):
        top = int(shares[number].argmax())
        shared = int((used[number] & (used.sum(axis=0) > 1)).sum())
        rows.append(
            [
                emotion,
                str(int(used[number].sum())),
                str(shared),
                f"{np.exp(entropy[number]):.1f}",
                f"{top} ({shares[number, top]:.0%})",
            ]
        )
    unused = int((~used.any(axis=0)).sum())
    return Figure(
        "Use of the bank's codes",
        f"How often the priors of each emotion are quantised to each of the {shares.shape[1]}"
        " codes, as a share of the"
        " emotion's training clips (from audio, video and both); darker is more, and the"
        " darkest is the largest share"
        f" of all, {shares.max():.0%}. Codes are ordered by the emotion that uses them most;"
        f" {unused} are used by none."
        " A code used in several rows is what emotions have in common.",
        [_usage_map(shares[:, order], order)],
        ["Emotion", "codes used", "of them shared", "perplexity", "most used code (share)"],
        rows,
    )


def code_order(shares: np.ndarray) -> np.ndarray:
    """Return the codes `(num_codes,)` grouped by the emotion with the largest share, unused ones last.

    Args:
        shares: `(emotions, num_codes)`.
    """
    strongest = np.where(shares.any(axis=0), shares.argmax(axis=0), len(shares))
    return np.lexsort((-shares.max(axis=0), strongest))


def _usage_map(shares: np.ndarray, order: np.ndarray) -> Markup:
    cell, height, left, bottom = 720 / shares.shape[1], 22, 74, 30
    parts = []
    for i, emotion in enumerate(EMOTIONS):
        y = height * i
        parts.append(f'<text class="tick end" x="{left - 8}" y="{y + 14}">{escape(emotion)}</text>')
        for j, share in enumerate(shares[i]):
            strength = 100 * share / max(shares.max(), 1e-12)
            fill = f"color-mix(in srgb, var(--series-1) {strength:.0f}%, var(--raised))"
            parts.append(
                f'<rect x="{left + cell * j:.1f}" y="{y}" width="{cell - 1:.1f}" height="{height - 2}"'
                f' style="fill:{fill}"><title>{emotion}, code {order[j]}: {share:.1%}</title></rect>'
            )
    width, bottom_y = left + 720, height * len(EMOTIONS) + 16
    parts.append(f'<text class="tick middle" x="{left + 360}" y="{bottom_y}">code, grouped by emotion</text>')
    return described_svg(
        width,
        height * len(EMOTIONS) + bottom,
        "Use of the bank's codes by emotion",
        "A row per emotion and a column per code; the table below sums each row up.",
        parts,
    )
