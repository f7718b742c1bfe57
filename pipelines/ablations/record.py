"""`metrics/ablations.json`: one row per run that is done, and what to know about the table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dicetalk.errors import DicetalkError
from dicetalk.files import read_json, write_json

from .plan import SEED_STEP, SEEDS, Run
from .variants import BASELINE, VARIANTS

RECORD = Path("metrics/ablations.json")
SYSTEM = "ours"
# Of metrics/evaluate.json; a protocol without one of them leaves the column out.
EVALUATED = ("emotion_accuracy", "emo_score", "emo_score_non_neutral", "sync_c", "f_sim")


class Record:
    """The rows, kept in the file after each run.

    Args:
        path: the file; missing is an empty table.
        profile: name of the profile.
        overrides: what all runs share.
        base: fingerprint of code, parameters and data; rows of another one do not belong into the table.
        restart: begin a new table when there are rows that do not belong.

    Raises:
        DicetalkError: for rows that do not belong, without `restart`.
    """

    def __init__(self, path: Path, profile: str, overrides: dict[str, Any], base: str, restart: bool = False):
        self.path, self.profile, self.overrides, self.base = path, profile, overrides, base
        rows = read_json(path)["runs"] if path.is_file() else []
        self.rows: list[dict[str, Any]] = [row for row in rows if row["base"] == base]
        if len(self.rows) < len(rows) and not restart:
            raise DicetalkError(
                f"{path} holds {len(rows) - len(self.rows)} runs of other code, parameters or data, which "
                "cannot stand in one table with new ones. Pass --restart to begin a new table; commit the "
                "old one first to keep it. Its DVC experiments stay."
            )

    def row(self, run: Run) -> dict[str, Any] | None:
        """Return the row of a run that is done, else `None`."""
        # As JSON, since that is what the file can tell apart.
        wanted = json.loads(json.dumps(run.overrides))
        for row in self.rows:
            if (row["variant"], row["seed"], row["overrides"]) == (run.variant, run.seed, wanted):
                return row
        return None

    def add(
        self, run: Run, commit: str, seconds: float | None, metrics: Mapping[str, float]
    ) -> dict[str, Any]:
        """Add the row of a run, in place of an older one, and write the file.

        Args:
            run: the run.
            commit: the git commit of its DVC experiment, which holds parameters, hashes and all metrics.
            seconds: how long it took; `None` when an earlier call ran it and was stopped before this.
            metrics: from `read_metrics`.
        """
        row = {
            "variant": run.variant,
            "seed": run.seed,
            "experiment": run.experiment,
            "commit": commit,
            "base": run.base,
            "overrides": run.overrides,
            "seconds": None if seconds is None else round(seconds, 1),
            "metrics": dict(metrics),
        }
        others = [r for r in self.rows if (r["variant"], r["seed"]) != (run.variant, run.seed)]
        order = {name: number for number, name in enumerate(VARIANTS)}
        self.rows = sorted([*others, row], key=lambda r: (order.get(r["variant"], len(order)), r["seed"]))
        variants = [VARIANTS[name] for name in VARIANTS if any(r["variant"] == name for r in self.rows)]
        write_json(
            self.path,
            {
                "profile": self.profile,
                "baseline": BASELINE,
                "overrides": self.overrides,
                "seeds": {"keys": list(SEEDS), "step": SEED_STEP},
                "variants": {
                    v.name: {"says": v.says, "paper": v.paper, "drawn": v.drawn, "overrides": v.overrides}
                    for v in variants
                },
                "runs": self.rows,
            },
        )
        return row


def read_metrics(evaluation: Mapping[str, Any], embedder: Mapping[str, Any]) -> dict[str, float]:
    """Return the columns of the table.

    Args:
        evaluation: `metrics/evaluate.json`.
        embedder: `metrics/train_embedder.json`.

    Raises:
        DicetalkError: when a file lacks what every run writes.
    """
    found = evaluation.get("systems", {}).get(SYSTEM, {})
    metrics = {name: float(found[name]["value"]) for name in EVALUATED if name in found}
    if not metrics:
        raise DicetalkError(f"metrics/evaluate.json has none of {', '.join(EVALUATED)} for {SYSTEM}.")
    try:
        strengths = _of_all_inputs(embedder["clustering_strength"])
        metrics |= {
            "emotion_probe": _value(_of_all_inputs(embedder["emotion_accuracy"])),
            "identity_probe": _value(embedder["identity_accuracy"]["mu"]),
            "clustering_strength": sum(map(_value, strengths.values())) / len(strengths),
        }
    except (KeyError, ZeroDivisionError) as error:
        raise DicetalkError(f"metrics/train_embedder.json lacks a measurement: {error}.") from None
    return metrics


def _of_all_inputs(values: Mapping[str, Any]) -> Any:
    """Return the entry of all modalities an embedder reads, which for some is one."""
    names: Sequence[str] = [name for name in ("both", "audio", "video") if name in values]
    return values[names[0] if names else "both"]


def _value(entry: Any) -> float:
    """Return a number that may come with its interval."""
    return float(entry["value"] if isinstance(entry, Mapping) else entry)
