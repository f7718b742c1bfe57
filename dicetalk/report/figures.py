"""The figures of the report, from what the stages wrote; one whose data a run does not have is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from dicetalk.config import Params
from dicetalk.files import read_json
from dicetalk.report.bank_figures import bank_usage
from dicetalk.report.clustering import clustering_figure
from dicetalk.report.discrimination import discrimination_figure
from dicetalk.report.embedding_map import embedding_map
from dicetalk.report.levels import level_figure
from dicetalk.report.lips import lips_figure
from dicetalk.report.stills import contact_sheet


def gather_figures(
    params: Params, processed: list[Path], per_clip: pd.DataFrame, published: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the figures by the names that the templates use; None where there is nothing to draw.

    Args:
        params: all parameters.
        processed: `data/processed/<set>` folders.
        per_clip: a row per evaluated video.
        published: the tables of `published.yaml`.
    """
    models, generated = Path("models"), Path("outputs/generated")
    embedder = read_json(Path("metrics/train_embedder.json"))
    diffusion = read_json(Path("metrics/train_diffusion.json"))
    people, level = params.report.grid_identities, params.report.grid_level
    return {
        "embedding_map": embedding_map(models / "embedder/embeddings.parquet", embedder),
        "clustering": clustering_figure(embedder["clustering_strength"], published),
        "bank_usage": bank_usage(models / "bank/code_usage.parquet"),
        "discrimination": discrimination_figure(diffusion.get("discrimination")),
        "levels": level_figure(per_clip, params.evaluate.bootstrap_samples),
        "lips": lips_figure(generated, processed, per_clip),
        "sheet": contact_sheet(generated, processed, people, level),
    }
