"""Tests of the report on a miniature run."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dicetalk.config import Params
from dicetalk.data.media import probe
from dicetalk.errors import DicetalkError
from dicetalk.labels import EMOTIONS
from dicetalk.report import graph
from dicetalk.report.build import build_report, headline, training_charts
from dicetalk.report.charts import Interval, heat_map, interval_chart, line_chart
from dicetalk.report.tables import accuracy_by_emotion, final_metrics, metric_rows, system_names
from dicetalk.report.videos import comparisons, emotion_grid

GENERATED = Path("outputs/generated")


class _Page(HTMLParser):
    """Collects what a browser would load, and checks that tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.sources += [
            value for key, value in attrs if key in ("src", "href", "srcset", "action") and value
        ]
        if tag not in ("meta", "link", "br", "img", "line", "circle", "path", "rect", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.sources += [value for key, value in attrs if key in ("src", "href") and value]

    def handle_endtag(self, tag):
        if tag in ("li", "p"):
            self.open = self.open[: len(self.open) - 1 - self.open[::-1].index(tag)]
        else:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def page(finished_run: Params) -> str:
    build_report(finished_run, Path("reports"))
    return Path("reports/report.html").read_text(encoding="utf-8")


def test_page_is_one_offline_file(page: str) -> None:
    parser = _Page()
    parser.feed(page)
    assert parser.open == []
    assert all(source.startswith(("data:", "#")) for source in parser.sources)
    assert not re.search(r"https?://|@import|url\(", page)
    anchors = [source[1:] for source in parser.sources if source.startswith("#")]
    assert anchors and all(f'id="{anchor}"' in page for anchor in anchors)


def test_page_says_what_was_measured_by_what(page: str, finished_run: Params) -> None:
    for text in (
        "0.710",
        "0.643 to 0.777",
        "n = 132",
        "in-domain emotion network",
        "abababababab",
        "needs the published Inception weights",
        "not comparable",
        "no face in 40 of 40 frames",
        "people are drawn",
        "demo-backbone",
        "8m32s",
        "level 2 - level 1",
        "+0.31 to +0.55",
    ):
        assert text in page
    assert "-inf &lt;dB&gt;" in page  # text of the data is escaped
    markdown = Path("reports/report.md").read_text()
    assert "| Emotion accuracy ↑ | 0.980 [0.892 to 1.068] (132) | 0.710" in markdown
    assert "| level 2 - level 1 | +0.42 [+0.31 to +0.55] (42) |" in markdown
    assert "| Emotion accuracy | -0.062 [-0.125 to +0.030] (44; p 0.400) |" in markdown
    assert "people are drawn" in markdown and "<li>" not in markdown


def test_embedded_videos_play(finished_run: Params, tmp_path: Path) -> None:
    grid = emotion_grid(GENERATED, 5, 3)
    assert list(grid) == ["M001", "W002"] and all(len(row) == 8 for row in grid.values())
    video = grid["M001"][4]
    assert video is not None and video.label == "M001, happy level 3"
    content = base64.b64decode(video.source.partition(",")[2])
    assert content == (GENERATED / "ours/M001_happy_3.mp4").read_bytes()
    assert grid["M001"][5].label == "M001, neutral level 1"  # type: ignore[union-attr]


def test_comparisons_show_the_same_clip_cut_alike(finished_run: Params, tmp_path: Path) -> None:
    found = comparisons(GENERATED, [Path("data/processed/mead")], 4)
    assert len(found) == 4 and len({item.title for item in found}) == 4
    for item in found:
        assert list(item.videos) == ["Real", "Ours, mode P", "Ours, mode V"]
        path = tmp_path / "real.mp4"
        path.write_bytes(base64.b64decode(item.videos["Real"].source.partition(",")[2]))
        assert probe(path).num_frames == 6  # the stored clip has 8


def test_missing_stage_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DicetalkError, match="dvc repro generate"):
        emotion_grid(GENERATED, 1, 1)


def test_final_metrics_are_flat(finished_run: Params) -> None:
    metrics = final_metrics(Path("metrics"))
    assert metrics["ours.emotion_accuracy"] == 0.71
    assert metrics["preprocess-mead.reasons.no_face"] == 1
    assert metrics["train_embedder.identity_accuracy.mu"] == 0.11
    assert all(re.fullmatch(r"[\w\-.: /]+", name) for name in metrics)


def test_systems_and_metrics_have_an_order() -> None:
    entry = {"value": 1.0, "ci95": [0.5, 1.5], "n": 3}
    evaluation = {
        "networks": {},
        "systems": {
            "still": {"new": entry},
            "mine": {"sync_c": entry},
            "ours": {"sync_c": entry},
            "real": {},
        },
    }
    assert system_names(evaluation) == ["real", "ours", "still", "mine"]
    rows = metric_rows(evaluation)
    assert [row["name"] for row in rows] == ["sync_c", "new"]
    assert [bool(cell) for cell in rows[0]["cells"]] == [False, True, False, True]


def test_accuracy_by_emotion_and_level(finished_run: Params) -> None:
    per_clip = pd.read_parquet("outputs/evaluation/per_clip.parquet")
    names, shares = accuracy_by_emotion(per_clip, ["real", "ours"])
    assert names == ["Real clips", "Ours, mode P", "level 1", "level 2", "level 3"]
    assert shares[0].tolist() == [1.0] * 8
    neutral = EMOTIONS.index("neutral")
    assert shares[1, 0] == pytest.approx(2 / 3) and shares[1, neutral] == 0
    assert shares[2:, 0].tolist() == [0, 1, 1] and np.isnan(shares[3:, neutral]).all()


def test_headline_holds_numbers_against_something() -> None:
    def entry(value: float) -> dict:
        return {"value": value, "ci95": [value - 0.1, value + 0.1], "n": 3}

    systems = {
        "ours": {"sync_c": entry(3.0)},
        "real": {"sync_c": entry(5.0)},
        "wrong_audio": {"sync_c": entry(1.0)},
    }
    assert headline({"systems": systems}) == [
        {
            "label": "Sync-C",
            "value": "3.00",
            "interval": "2.90 to 3.10",
            "against": "real 5.00, wrong audio 1.00",
        }
    ]


def test_training_and_held_out_values_share_a_chart(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"step": [0, 10, 20], "loss": [3.0, 2.0, 1.0], "lr": 0.1, "val_loss": [3.1, None, 1.1]}
    )
    table.to_csv(tmp_path / "curves.csv", index=False)
    charts = training_charts(tmp_path / "curves.csv")
    assert [name for name, _ in charts] == ["loss"]
    root = ElementTree.fromstring(str(charts[0][1]))
    lines = [item for item in root if item.tag == "polyline"]
    assert [len(line.get("points", "").split()) for line in lines] == [3, 2]


def test_charts_place_values_and_escape_names() -> None:
    line = ElementTree.fromstring(
        str(line_chart("a <b>", {"train": (np.array([0.0, 100.0]), np.array([1.0, 0.0]))}))
    )
    (left, high), (right, low) = [
        tuple(map(float, point.split(",")))
        for point in next(item for item in line if item.tag == "polyline").get("points", "").split()
    ]
    assert left < right and high < low  # y grows downwards in SVG
    rows = [Interval("a & b", 0.5, 0.4, 0.6, "ours"), Interval("c", 0.1, 0.1, 0.1, "floor")]
    dots = [item for item in ElementTree.fromstring(str(interval_chart("x", rows))) if item.tag == "circle"]
    assert float(dots[0].get("cx", 0)) > float(dots[1].get("cx", 0))
    cells = ElementTree.fromstring(str(heat_map("x", ["a", "b"], ["a", "b"], np.array([[1, -0.5], [0, 1]]))))
    assert [item.text for item in cells if "cell" in item.get("class", "")] == ["1.00", "-.50", ".00", "1.00"]


def test_constant_curve_has_a_scale() -> None:
    assert "nan" not in str(line_chart("x", {"train": (np.array([0.0, 1.0]), np.array([2.0, 2.0]))}))


DVC = {
    "stages": {
        "late": {"cmd": "", "deps": ["data/a/x.bin", "model"], "outs": ["final"]},
        "side": {"cmd": "", "outs": ["model"]},
        "each": {
            "foreach": "${sets}",
            "do": {
                "cmd": "",
                "desc": "per set",
                "deps": ["${item.root}"],
                "outs": [{"data/${key}": {"cache": True}}],
            },
        },
        "first": {"cmd": "", "outs": ["raw"]},
        "last": {"cmd": "", "deps": ["final", "raw/a"], "outs": ["page"]},
    }
}


def test_graph_follows_the_files() -> None:
    stages = graph.read_stages(DVC, {"sets": {"a": {"root": "raw/a"}, "b": {"root": "raw/b"}}})
    assert [stage.name for stage in stages] == ["first", "each", "side", "late", "last"]
    by_name = {stage.name: stage for stage in stages}
    assert by_name["each"].instances == ["a", "b"] and by_name["each"].after == ["first"]
    assert by_name["late"].after == ["side", "each"]
    assert by_name["last"].after == ["late"]  # `first` is implied
    picture = str(graph.draw(stages, {"each": 75.0}))
    assert "each × 2" in picture and "1m15s" in picture and "per set" in picture
    assert picture.count('class="edge"') == 4


def test_graph_reads_the_real_pipeline(repository: Path) -> None:
    files = [graph.load_yaml(repository / name) for name in ("dvc.yaml", "params.yaml")]
    names = [stage.name for stage in graph.read_stages(*files)]
    assert sorted(names) == sorted(files[0]["stages"])
    assert (
        names.index("index")
        < names.index("preprocess")
        < names.index("encode")
        < names.index("train_diffusion")
    )
