"""The tables of metrics and systems agree with all that names one of their rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from test_systems import SETTINGS, trial

from dicetalk.errors import DicetalkError
from dicetalk.evaluation import reference
from dicetalk.evaluation.metrics import table
from dicetalk.evaluation.metrics.metric import ClipMean
from dicetalk.evaluation.metrics.table import METRICS, by_topic
from dicetalk.evaluation.protocol import FOLDER, load_protocol
from dicetalk.evaluation.scores import score_trial
from dicetalk.evaluation.systems import SYSTEMS
from dicetalk.generation import split
from dicetalk.report.ablations import COLUMNS
from dicetalk.report.build import HEADLINE
from pipelines.ablations.record import EVALUATED

PROTOCOLS = {path.stem: load_protocol(path.stem).definition for path in sorted(FOLDER.glob("*.yaml"))}


def test_no_two_rows_have_one_name() -> None:
    assert len(METRICS) == len(table._ROWS) == len(by_topic())
    labels = [row.label for row in (*METRICS.values(), *SYSTEMS.values())]
    assert len(set(labels)) == len(labels)


def test_every_mean_is_of_a_column_that_its_file_measures() -> None:
    whole = trial()
    whole.shown["lpips"] = whole.shown["ssim"]
    row, problems = score_trial(whole, METRICS.values(), SETTINGS)
    columns = {metric.value.column for metric in METRICS.values() if isinstance(metric.value, ClipMean)}
    assert not problems
    assert columns == row.keys() - {"system", "clip_id", "identity", "emotion", "level"}


def test_every_metric_is_of_some_protocol_and_floors_are_floors() -> None:
    assert set().union(*(definition.networks for definition in PROTOCOLS.values())) == set(METRICS)
    for row in METRICS.values():
        assert set(row.protocols) <= set(PROTOCOLS), row.name
        assert row.floor is None or SYSTEMS[row.floor].standing == "floor", row.name


def test_the_page_of_metrics_is_that_of_the_tables(repository: Path) -> None:
    page = (repository / reference.PAGE).read_text(encoding="utf-8")
    assert page == reference.filled(page), "run `python -m dicetalk.evaluation.reference`"
    row = "| `lmd` | lower | eye distances | landmarks | `still` | demo, mead, open, paper, smoke | "
    assert row in page and "| `still` | Still image | the reference frame, repeated |" in page
    with pytest.raises(DicetalkError, match="once each"):
        reference.filled(page.replace("<!-- end of metrics -->", ""))


def test_whoever_names_a_metric_or_a_system_names_a_row(repository: Path) -> None:
    published = yaml.safe_load((repository / "dicetalk/report/published.yaml").read_text())["tables"]
    for printed in published:
        if printed["source"] == "evaluation":
            assert set(printed["metrics"]) <= set(METRICS), printed["title"]
    for profile in (repository / "profiles").glob("*.yaml"):
        system, _, metric = yaml.safe_load(profile.read_text())["retrain"]["metric"].partition(".")
        assert system in SYSTEMS and metric in METRICS, profile
    assert {*HEADLINE, *EVALUATED} <= set(METRICS)
    assert {*EVALUATED, "emotion_probe", "identity_probe", "clustering_strength"} <= set(COLUMNS)
    assert set(split.SYSTEMS.values()) == {name for name, row in SYSTEMS.items() if not row.make_trials}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lmd: landmarks", "lmdd: landmarks", "lmdd: not in the table"),
        ("lmd: landmarks", "lmd: identity", "lmd: is read by landmarks, not by identity"),
        ("fd_image: identity", "fd_image: landmarks", "fd_image: is read by image or .*, not by landmarks"),
        ("fd_image: identity", "fid: identity", "fid: only inception-fid may be called so"),
        ("networks:", "metrics:", "not a valid protocol"),
    ],
)
def test_a_protocol_with_a_wrong_metric_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (FOLDER / "demo.yaml").read_text()
    assert old in text
    (tmp_path / "odd.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(DicetalkError, match=message):
        load_protocol("odd", tmp_path)


def test_a_protocol_may_feed_a_set_distance_by_another_network(tmp_path: Path) -> None:
    text = (FOLDER / "demo.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("fd_image: identity", "fd_image: emotion"))
    assert load_protocol("mine", tmp_path).definition.networks["fd_image"] == "emotion"
