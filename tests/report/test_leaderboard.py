"""The leaderboard: no column holds numbers that were read in two ways; published and measured stay apart."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dicetalk.cli.app import app
from dicetalk.errors import DicetalkError
from dicetalk.files import write_json
from dicetalk.report.graph import load_yaml
from dicetalk.report.leaderboard import board_table, build_leaderboard, make_boards
from dicetalk.report.readings import Column, Entry, Evaluation, reading_of

PUBLISHED = Path(__file__).resolve().parents[2] / "dicetalk/report/published.yaml"


def evaluation(
    value: float = 0.5, protocol: str = "demo", network: str = "net", n: int = 10
) -> dict[str, Any]:
    def entry(number: float) -> dict[str, Any]:
        return {"value": number, "ci95": [number - 0.1, number + 0.1], "n": n}

    names = ("emo_score", "sync_c", "sync_d", "f_sim")
    return {
        "protocol": {"name": protocol, "sha256": protocol.encode().hex().ljust(64, "0"), "summary": "a test"},
        "networks": {
            name: {"name": network, "sha256": network.encode().hex().ljust(64, "0")} for name in names
        },
        "systems": {
            "ours": {name: entry(value) for name in names},
            "real": {name: entry(0.9) for name in names},
            "still": {name: entry(0.1) for name in names},
        },
        "skipped": {"fid": "needs <weights>"},
    }


def boards(**files: dict[str, Any]) -> list:
    return make_boards({name: Evaluation.model_validate(content) for name, content in files.items()})


def test_one_protocol_is_one_table_with_its_best_marked() -> None:
    (board,) = boards(mine=evaluation(0.5), other=evaluation(0.6))
    table = board_table(board)
    assert [row["label"] for row in table["rows"]] == [
        "mine", "other", "Real clips", "mine: Still image", "other: Still image",
    ]  # fmt: skip
    bold = {row["label"]: [cell["best"] for cell in row["cells"]] for row in table["rows"]}
    assert [column["label"].split(",")[0] for column in table["columns"]] == [
        "Emo-Score\N{NO-BREAK SPACE}↑", "Sync-C", "Sync-D", "F-SIM",
    ]  # fmt: skip
    assert bold["other"] == [True, True, False, True] and bold["mine"] == [False, False, True, False]
    assert not any(any(bold[label]) for label in bold if label not in ("mine", "other"))
    assert not table["warnings"]


def test_two_protocols_never_share_a_column() -> None:
    one, other = boards(mine=evaluation(0.5), other=evaluation(0.6, protocol="paper"))
    assert (one.name, other.name) == ("demo", "paper")
    assert [row for row in one.rows if one.rows[row] == "ours"] == ["mine"]
    assert [row for row in other.rows if other.rows[row] == "ours"] == ["other"]
    assert not one.columns.keys() & other.columns.keys()


def test_a_changed_protocol_of_the_same_name_is_another_protocol() -> None:
    changed = evaluation(0.6)
    changed["protocol"]["sha256"] = "f" * 64
    assert len(boards(mine=evaluation(0.5), other=changed)) == 2


def test_two_networks_of_one_protocol_get_two_columns() -> None:
    retrained = evaluation(0.6)
    retrained["networks"]["sync_c"] = {"name": "net", "sha256": "e" * 64}
    (board,) = boards(mine=evaluation(0.5), other=retrained)
    table = board_table(board)
    sync = [i for i, column in enumerate(table["columns"]) if column["label"].startswith("Sync-C")]
    assert len(sync) == 2 and table["columns"][sync[0]]["note"] != table["columns"][sync[1]]["note"]
    rows = {row["label"]: row["cells"] for row in table["rows"]}
    for column in sync:
        assert (rows["mine"][column] is None) != (rows["other"][column] is None)
    assert not any(cell["best"] for row in rows.values() for i, cell in enumerate(row) if cell and i in sync)


def test_a_column_refuses_a_number_read_in_another_way() -> None:
    mine = Evaluation.model_validate(evaluation())
    entry = Entry(value=0.5, ci95=(0.4, 0.6), n=10)
    column = Column(reading_of(mine, "sync_c"))
    column.add("mine", reading_of(mine, "sync_c"), entry)
    for content, message in (
        (evaluation(protocol="paper"), "protocol paper .* cannot stand in one column with .* protocol demo"),
        (evaluation(network="other"), "by other .* cannot stand"),
        (evaluation(), "two numbers"),
    ):
        with pytest.raises(DicetalkError, match=message):
            column.add("mine", reading_of(Evaluation.model_validate(content), "sync_c"), entry)
    with pytest.raises(DicetalkError, match="emo_score of .* cannot stand in one column with sync_c"):
        column.add("other", reading_of(mine, "emo_score"), entry)
    assert list(column.entries) == ["mine"]


def test_other_real_clips_are_noticed_and_unequal_numbers_of_clips_have_no_best() -> None:
    other = evaluation(0.6)
    other["systems"]["real"]["sync_c"]["value"] = 0.8
    (board,) = boards(mine=evaluation(0.5), other=other)
    assert "Real clips of other" in board.rows
    assert board.warnings and "sync_c" in board.warnings[0] and "f_sim" not in board.warnings[0]
    (board,) = boards(mine=evaluation(0.5), other=evaluation(0.6, n=9))
    assert "Real clips of other" in board.rows
    assert not any(cell["best"] for row in board_table(board)["rows"] for cell in row["cells"])


@pytest.fixture
def page(tmp_path: Path) -> str:
    write_json(tmp_path / "mine.json", evaluation(0.5))
    write_json(tmp_path / "other.json", evaluation(0.6, protocol="paper"))
    means = {"emotion": {"value": 3.25, "ci95": [3.0, 3.5], "n_raters": 9, "n_answers": 99}}
    study = {"study": "abc", "raters": {"kept": [{}] * 9}, "ratings": {"systems": {"mine": means}}}
    write_json(tmp_path / "study.json", study)
    strengths = {emotion: 1.75 for emotion in ("angry", "contempt", "disgusted", "happy", "sad")}
    embedder = {"clustering_strength": {name: strengths for name in ("audio", "video", "both")}}
    write_json(tmp_path / "embedder.json", embedder)
    results = {"mine <b>": tmp_path / "mine.json", "other": tmp_path / "other.json"}
    build_leaderboard(results, tmp_path / "study.json", tmp_path / "embedder.json", tmp_path / "board.html")
    return (tmp_path / "board.html").read_text(encoding="utf-8")


def tables(page: str, kind: str) -> list[str]:
    return re.findall(rf'<table class="{kind}">.*?</table>', page, re.DOTALL)


def test_every_published_number_is_printed_in_published_tables_only(page: str) -> None:
    published = load_yaml(PUBLISHED)["tables"]
    assert {table["number"] for table in published} == {1, 3, 4, 5}
    shown, measured = tables(page, "published"), "".join(tables(page, "measured"))
    assert len(shown) == len(published)
    for table, text in zip(published, shown, strict=True):
        assert f"<h3>{table['title']}</h3>" in page
        assert len(table["metrics"]) == len(table["columns"])
        for name, values in table["rows"].items():
            assert f'<th scope="row">{name}</th>' in text
            for value in filter(None, values):
                assert f"<td>{value}</td>" in text and value not in measured


def test_measured_numbers_stand_beside_with_protocol_network_and_reason(page: str) -> None:
    published = "".join(tables(page, "published"))
    measured = tables(page, "measured")
    # Two protocols in full; beside tables 1 (twice) and 4 both again; table 3 and table 5 once each.
    assert len(measured) == 2 + 2 * 3 + 1 + 1
    assert all("measured here" in table for table in measured) and "measured here" not in published
    for table in measured[:2]:
        assert ("protocol demo" in table) != ("protocol paper" in table)
        assert "net 6e6574" in table
    assert "<td>3.250<small>3.000 to 3.500</small><small>99 ratings</small></td>" in page
    assert "<td>1.750</td>" in page
    assert "needs &lt;weights&gt;" in page and "mine &lt;b&gt;" in page and "mine <b>" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_nothing_measured_is_said_so(tmp_path: Path) -> None:
    write_json(tmp_path / "mine.json", evaluation())
    build_leaderboard({"mine": tmp_path / "mine.json"}, None, None, tmp_path / "board.html")
    assert (tmp_path / "board.html").read_text().count("Nothing of this was measured here.") == 2


def test_the_repositorys_own_evaluation_is_readable(repository: Path, tmp_path: Path) -> None:
    arguments = ["leaderboard", "--result", f"ours={repository / 'metrics/evaluate.json'}"]
    embedder = ["--embedder", str(repository / "metrics/train_embedder.json")]
    result = CliRunner().invoke(app, [*arguments, *embedder, "--out", str(tmp_path / "board.html")])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "board.html").read_text()
    assert "Real clips" in page and "Nothing of this was measured here." in page  # there is no user study


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    content = evaluation()
    for change, message in (
        ({"protocol": "demo"}, "no result of `dicetalk evaluate`"),
        ({"systems": {"ours": {"sync_c": {"value": float("inf"), "ci95": [0, 1], "n": 1}}}}, "no result of"),
    ):
        broken = copy.deepcopy(content) | change
        path = tmp_path / "x.json"
        path.write_text(json.dumps(broken))
        with pytest.raises(DicetalkError, match=message):
            build_leaderboard({"x": path}, None, None, tmp_path / "board.html")
    write_json(tmp_path / "good.json", content)
    for study, embedder, message in (
        (tmp_path / "good.json", None, "study analyse"),
        (None, tmp_path / "good.json", "clustering strength"),
    ):
        with pytest.raises(DicetalkError, match=message):
            build_leaderboard({"x": tmp_path / "good.json"}, study, embedder, tmp_path / "board.html")
    assert not (tmp_path / "board.html").exists()
