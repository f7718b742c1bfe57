"""The figures show what the run's tables hold, and are left out where there is none."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd

from dicetalk.labels import CLASSES, EMOTIONS
from dicetalk.report.bank_figures import bank_usage, code_order
from dicetalk.report.clustering import clustering_figure
from dicetalk.report.discrimination import discrimination_figure
from dicetalk.report.embedding_map import embedding_map
from dicetalk.report.levels import level_figure
from dicetalk.report.lips import median_clip
from dicetalk.report.stills import contact_sheet

PROBES = {
    "emotion_accuracy": {"both": 0.8, "chance": 0.125},
    "identity_accuracy": {"mu": {"value": 0.1, "ci95": [0.05, 0.2]}, "chance": 0.06},
}


def test_map_marks_held_out_people(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"clip_id": f"{name}{i}", "identity": name, "emotion": EMOTIONS[i], "level": 1, "split": split}
        for name, split in (("A", "train"), ("B", "test"))
        for i in range(8)
    ]
    table = pd.DataFrame(rows).assign(mu=list(rng.normal(size=(16, 4)).astype(np.float32)))
    table.to_parquet(tmp_path / "embeddings.parquet")
    figure = embedding_map(tmp_path / "embeddings.parquet", PROBES)
    assert figure is not None and len(figure.charts) == 2
    for chart in figure.charts:
        marks = [item.get("class") for item in ElementTree.fromstring(str(chart)) if item.tag == "path"]
        assert marks.count("mark marked") == 8 and marks.count("mark unmarked") == 8
    assert ["identity", "mu", "0.100 [0.050 to 0.200]", "0.060"] in figure.rows
    assert embedding_map(tmp_path / "absent.parquet", PROBES) is None


def test_codes_are_grouped_by_emotion_and_summed_up(tmp_path: Path) -> None:
    assert code_order(np.array([[0, 0.2, 0.8, 0], [0.6, 0.4, 0, 0]])).tolist() == [2, 0, 1, 3]
    counts = pd.DataFrame([(e, c, int(c in (0, i + 1))) for i, e in enumerate(EMOTIONS) for c in range(10)])
    counts.columns = ["emotion", "code", "count"]
    counts.to_parquet(tmp_path / "usage.parquet")
    figure = bank_usage(tmp_path / "usage.parquet")
    assert figure is not None and figure.rows[0][:4] == ["angry", "2", "1", "2.0"]
    assert "1 are used by none" in figure.caption


def test_clustering_stands_beside_the_paper() -> None:
    paper = {"number": 5, "columns": ["angry"], "rows": {"audio": ["2.44"], "video": [None]}}
    figure = clustering_figure({"audio": {"angry": 1.5}}, [paper])
    assert [row[:3] for row in figure.rows] == [
        ["this run, audio", "1.50", "–"],
        ["paper, audio", "2.44", "–"],
        ["paper, video", "–", "–"],
    ]


def test_discrimination_has_a_line_per_condition(measured_discrimination: dict) -> None:
    figure = discrimination_figure(measured_discrimination)
    assert figure is not None and figure.rows[0][1] == "1.00 [0.90, 1.00]"
    lines = [item for item in ElementTree.fromstring(str(figure.charts[0])) if item.tag == "polyline"]
    assert len(lines) == 4
    assert discrimination_figure(None) is None


def test_levels_are_drawn_when_measured() -> None:
    rows = [
        {"system": system, "emotion": emotion, "level": level, "identity": name, "expression_strength": level}
        for system in ("real", "ours")
        for emotion, level in CLASSES
        for name in "AB"
    ]
    table = pd.DataFrame(rows)
    figure = level_figure(table, 50)
    assert figure is not None and len(figure.charts) == 7
    assert figure.rows[1] == ["angry, Ours, mode P", *(f"{x}.00 [{x}.00, {x}.00]" for x in (1, 2, 3))]
    few = level_figure(table[table["emotion"] == "happy"], 50)
    assert few is not None and len(few.charts) == 1
    assert level_figure(table.drop(columns="expression_strength"), 50) is None


def test_strip_shows_the_median_clip() -> None:
    table = pd.DataFrame({"system": "ours", "clip_id": list("abc"), "sync_c": [3.0, 1.0, 2.0]})
    assert median_clip(table) == "c"
    assert median_clip(table.drop(columns="sync_c")) is None


def test_sheet_has_portrait_ours_and_real(finished_run) -> None:
    rows = contact_sheet(Path("outputs/generated"), [Path("data/processed/mead")], 5, 3)
    assert [row.identity for row in rows] == ["M001", "W002"]
    for row in rows:
        for stills, what in ((row.ours, "Generated"), (row.real, "Real")):
            assert [still.label for still in stills if still] == [
                f"{what}: {row.identity}, {emotion} level {1 if emotion == 'neutral' else 3}"
                for emotion in EMOTIONS
            ]
        assert row.portrait.source.startswith("data:image/jpeg;base64,")
