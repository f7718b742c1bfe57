"""The ablation table: intervals by hand, the paper's orderings, and its place in the report."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dicetalk.files import write_json
from dicetalk.report.ablations import (
    HOLDS,
    REVERSED,
    UNDECIDED,
    over_seeds,
    read_ablations,
    text_table,
)
from dicetalk.report.build import build_report
from pipelines.ablations.record import Record
from pipelines.ablations.variants import VARIANTS


def write_record(path: Path, values: dict[str, dict[int, dict[str, float]]]) -> None:
    """Write a record as the command does."""
    variants = {
        name: {"says": v.says, "paper": v.paper, "drawn": v.drawn, "overrides": v.overrides}
        for name, v in VARIANTS.items()
        if name in values
    }
    runs = [
        {"variant": name, "seed": seed, "seconds": 200.0, "metrics": metrics}
        for name, by_seed in values.items()
        for seed, metrics in by_seed.items()
    ]
    content = {"profile": "demo", "baseline": "full", "overrides": {"generate.modes": ["P"]}}
    seeds = {"keys": ["generate.seed"], "step": 1000}
    write_json(path, {**content, "seeds": seeds, "variants": variants, "runs": runs})


def seeds_of(metric: str, *values: float) -> dict[int, dict[str, float]]:
    return {seed: {metric: value} for seed, value in enumerate(values)}


def test_the_interval_is_student_t_over_seeds() -> None:
    mean = over_seeds([1.0, 2.0, 3.0])
    half = 4.302653 * 1.0 / math.sqrt(3)  # t of 2 degrees of freedom, deviation 1
    assert (mean.value, mean.n) == (2.0, 3)
    assert mean.low == pytest.approx(2 - half) and mean.high == pytest.approx(2 + half)
    assert str(over_seeds([0.5])) == "0.500" and over_seeds([0.5]).low is None
    assert not over_seeds([0.5]).excludes_zero


def test_differences_are_paired_by_seed(tmp_path: Path) -> None:
    # Seeds differ much more than the variants, which differ by about 0.1 on the two seeds both have.
    full, other = seeds_of("sync_c", 1.0, 5.0), seeds_of("sync_c", 0.9, 4.9, 9.0)
    write_record(tmp_path / "a.json", {"full": full, "no_bank": other})
    table = read_ablations(tmp_path / "a.json")
    assert table is not None
    baseline, row = table.rows
    assert not baseline.differences and row.seeds == [0, 1, 2]
    assert row.differences["sync_c"].n == 2 and row.differences["sync_c"].value == pytest.approx(-0.1)
    assert row.differences["sync_c"].excludes_zero
    assert row.means["sync_c"].value == pytest.approx((0.9 + 4.9 + 9.0) / 3)
    assert table.expected_by_chance == pytest.approx(0.05)
    assert text_table(table).splitlines()[2].startswith("| full | 2 | 3.000 [")


def test_orderings_are_read_from_the_paper_and_the_interval(tmp_path: Path) -> None:
    full = {s: {"emo_score": 0.5, "f_sim": 0.9, "clustering_strength": 3 + s / 9} for s in range(3)}
    no_bank = {s: {"emo_score": 0.4 + s / 100, "f_sim": 0.8 - s / 100} for s in range(3)}
    no_prior = {s: {"emo_score": 0.5 + (s - 1) / 10} for s in range(3)}
    audio = {s: {"clustering_strength": 2 + s / 9} for s in range(3)}
    write_record(
        tmp_path / "a.json", {"full": full, "no_bank": no_bank, "no_prior": no_prior, "audio_only": audio}
    )
    table = read_ablations(tmp_path / "a.json")
    assert table is not None
    found = {item.claim: item for item in table.orderings}
    # In the paper 0.4781 against 0.5424; F-SIM rises without the bank there, 0.8775 against 0.8704.
    assert found["Emo-Score: no_bank below full"].reading == HOLDS
    assert found["Emo-Score: no_bank below full"].source == "0.4781 against 0.5424 (table 4)"
    assert found["F-SIM, identity: no_bank above full"].reading == REVERSED
    assert found["Emo-Score: no_prior below full"].reading == UNDECIDED
    unmeasured = found["Emo-Score, non-neutral: no_bank below full"]
    assert unmeasured.ours is None and unmeasured.reading == UNDECIDED
    assert not [claim for claim in found if "audio_only" in claim], "table 5 needs video_only to compare with"
    write_record(tmp_path / "a.json", {"full": full, "audio_only": full, "video_only": audio})
    table = read_ablations(tmp_path / "a.json")
    assert table is not None
    readings = {item.claim.partition(": clustering strength: ")[2]: item for item in table.orderings}
    assert readings["audio_only below video_only"].reading == REVERSED
    assert readings["audio_only below video_only"].source.startswith(
        "2.46 against 7.16 (table 5, mean of angry"
    )
    assert readings["video_only below full"].reading == HOLDS


def test_nothing_run_is_nothing_to_show(tmp_path: Path) -> None:
    assert read_ablations(tmp_path / "missing.json") is None
    write_json(tmp_path / "empty.json", {"runs": []})
    assert read_ablations(tmp_path / "empty.json") is None


def test_the_report_has_the_table_and_does_without(finished_run, tmp_path: Path) -> None:
    build_report(finished_run, tmp_path)
    assert "python -m pipelines.ablate" in (tmp_path / "report.html").read_text()
    assert "## Ablations" not in (tmp_path / "report.md").read_text()
    full = {s: {"emotion_accuracy": 0.7 + s / 50, "emo_score": 0.6, "f_sim": 0.9} for s in range(3)}
    other = {s: {"emotion_accuracy": 0.3 + s / 50, "emo_score": 0.61, "f_sim": 0.9 - s} for s in range(2)}
    write_record(Path("metrics/ablations.json"), {"full": full, "no_bank": other, "audio_only": {7: {}}})
    try:
        build_report(finished_run, tmp_path)
    finally:
        Path("metrics/ablations.json").unlink()
    page, text = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    assert "<b>Δ -0.400 [-0.400, -0.400]</b>" in page and "0.2 would be bold by chance" in page
    assert "0 of 3 orderings hold" in page and "1 are reversed" in page
    assert VARIANTS["no_bank"].drawn in page and "generate.modes" in page
    assert "| no_bank | 2 | 0.310 [" in text and "Emo-Score: no_bank below full: paper 0.4781" in text


def test_the_committed_record_is_one(repository: Path) -> None:
    """Whatever it holds, the report can read it and the command can continue it or say why not."""
    path = repository / "metrics/ablations.json"
    table = read_ablations(path)
    assert table is None or table.rows
    Record(path, "demo", {}, "another", restart=True)
