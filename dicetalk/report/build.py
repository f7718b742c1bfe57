"""Gather what the stages wrote and render `report.html` (one offline file) and `report.md`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dicetalk.config import Params
from dicetalk.evaluation.metrics.table import METRICS
from dicetalk.evaluation.systems import find_system
from dicetalk.files import atomic_path, read_json
from dicetalk.labels import EMOTIONS
from dicetalk.progress import log
from dicetalk.report import graph
from dicetalk.report.ablations import read_ablations, text_table
from dicetalk.report.charts import heat_map, interval_chart, line_chart
from dicetalk.report.figures import gather_figures
from dicetalk.report.provenance import provenance, stage_costs
from dicetalk.report.tables import (
    accuracy_by_emotion,
    data_counts,
    metric_rows,
    pair_label,
    paired_rows,
    strength_rows,
    strength_systems,
    system_names,
)
from dicetalk.report.videos import comparisons, emotion_grid
from dicetalk.templating import page_templates

# Heading -> file of curves, relative to `models/`.
CURVES = {
    "Emotion embedder": "embedder/curves.csv",
    "Emotion bank": "bank/curves.csv",
    "Diffusion model": "diffusion/curves.csv",
    "Evaluator: emotion": "evaluators/emotion_curves.csv",
    "Evaluator: emotion, second network": "evaluators/emotion_second_curves.csv",
    "Evaluator: identity": "evaluators/identity_curves.csv",
    "Evaluator: sync": "evaluators/sync_curves.csv",
}
HEADLINE = {
    "emotion_accuracy": "emotion accuracy",
    "sync_c": "Sync-C",
    "f_sim": "identity similarity",
}
# Present in every training, and the same picture every time.
NOT_DRAWN = ("lr", "grad_norm")


def build_report(params: Params, out: Path) -> None:
    """Write `report.html` and `report.md` about the run in the working directory.

    Args:
        params: all parameters.
        out: folder of the two files.

    Raises:
        DicetalkError: when a stage has not written what the report shows.
    """
    content = gather(params)
    templates = page_templates("dicetalk.report")
    for name in ("report.html", "report.md"):
        with atomic_path(out / name) as temporary:
            temporary.write_text(templates.get_template(f"{name}.j2").render(content), encoding="utf-8")
        log(f"report: {out / name}, {(out / name).stat().st_size / 2**20:.2f} MiB")


def gather(params: Params) -> dict[str, Any]:
    """Return everything the templates show, by name."""
    metrics, models, generated = Path("metrics"), Path("models"), Path("outputs/generated")
    processed = [Path("data/processed") / name for name in params.corpora]
    evaluation = read_json(metrics / "evaluate.json")
    systems = system_names(evaluation)
    rows = metric_rows(evaluation)
    stages = graph.read_stages(graph.load_yaml(Path("dvc.yaml")), graph.load_yaml(Path("params.yaml")))
    per_clip = pd.read_parquet("outputs/evaluation/per_clip.parquet")
    accuracies = accuracy_by_emotion(per_clip, systems)
    published = graph.load_yaml(Path(__file__).with_name("published.yaml"))["tables"]
    costs = stage_costs(Path("runs/costs"))
    bank, priors = read_json(metrics / "learn_bank.json"), read_json(metrics / "priors.json")
    return {
        "params": params,
        "provenance": provenance(),
        "pipeline": graph.draw(stages, {name: cost.seconds for name, cost in costs.items()}),
        "costs": {stage.name: costs[stage.name] for stage in stages if stage.name in costs},
        "generated_frames": int(pd.read_parquet(generated / "manifest.parquet")["num_frames"].sum()),
        "evaluation": evaluation,
        "systems": [find_system(name) for name in systems],
        "metric_rows": rows,
        "interval_charts": [(row, interval_chart(row["label"], row["intervals"])) for row in rows],
        "accuracy_map": heat_map("emotion accuracy by emotion", accuracies[0], EMOTIONS, accuracies[1]),
        "strength_rows": strength_rows(evaluation),
        "strength_systems": [find_system(name) for name in strength_systems(evaluation)],
        "paired_rows": paired_rows(evaluation),
        "pairs": [pair_label(pair) for pair in evaluation.get("paired", {})],
        "headline": headline(evaluation),
        "data": data_counts(metrics, Path("data/processed"), [folder.name for folder in processed]),
        "curves": {name: training_charts(models / path) for name, path in CURVES.items()},
        "embedder": read_json(metrics / "train_embedder.json"),
        "bank": bank,
        "bank_map": _correlation_map("emotions through the bank", bank["emotion_correlation"])
        if params.learn_bank.use_bank
        else None,
        "prior_map": _correlation_map("emotion priors", priors),
        "ablations": read_ablations(metrics / "ablations.json"),
        "text_table": text_table,
        "backbone": read_json(metrics / "backbone.json"),
        "emotions": EMOTIONS,
        "grid": emotion_grid(generated, params.report.grid_identities, params.report.grid_level),
        "comparisons": comparisons(generated, processed, params.report.grid_identities),
        "published": published,
        "figures": gather_figures(params, processed, per_clip, published),
    }


def headline(evaluation: dict[str, Any]) -> list[dict[str, str]]:
    """Return the few numbers that say whether it worked, each with what to hold it against."""
    systems = evaluation["systems"]
    found = []
    for metric, label in HEADLINE.items():
        if metric not in systems["ours"]:
            continue
        floor = METRICS[metric].floor
        against = ["chance 0.125"] if metric == "emotion_accuracy" else []
        against += [f"real {systems['real'][metric]['value']:.2f}"] if metric in systems["real"] else []
        if floor and metric in systems.get(floor, {}):
            against.append(f"{find_system(floor).label.lower()} {systems[floor][metric]['value']:.2f}")
        entry = systems["ours"][metric]
        found.append(
            {
                "label": label,
                "value": f"{entry['value']:.2f}",
                "interval": "{:.2f} to {:.2f}".format(*entry["ci95"]),
                "against": ", ".join(against),
            }
        )
    return found


def training_charts(path: Path) -> list[tuple[str, Any]]:
    """Return one chart per logged quantity of a training; training and held-out values share a picture."""
    table = pd.read_csv(path)
    names = dict.fromkeys(name.removeprefix("val_") for name in table if name != "step")
    charts = []
    for name in names:
        series = {}
        for column, role in ((name, "train"), (f"val_{name}", "validation")):
            if column in table and name not in NOT_DRAWN:
                values = table[["step", column]].dropna()
                series[role] = (values["step"].to_numpy(float), values[column].to_numpy(float))
        if series:
            charts.append((name.replace("_", " "), line_chart(f"{name} over steps", series)))
    return charts


def _correlation_map(label: str, content: dict[str, Any]) -> Any:
    emotions = content["emotions"]
    return heat_map(f"cosine similarity of {label}", emotions, emotions, np.array(content["cosine_centred"]))
