"""Unfinished work: found again while nothing that decides the result has changed, and never otherwise."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from dicetalk.errors import DicetalkError
from dicetalk.files import read_json
from dicetalk.runs import work as module
from dicetalk.runs.code import code_digest
from dicetalk.runs.content import content_hashes
from dicetalk.runs.declaration import read_declaration
from dicetalk.runs.edits import unedited
from dicetalk.runs.work import remove_leftovers, remove_recorded, stage_work

STAGE = {
    "foreach": "${index}",
    "do": {
        "cmd": "python -m stages.train",
        "deps": ["stages/train.py", "dicetalk/loss.py", "data/${key}"],
        "params": ["train.lr", "index.${key}", {"weights.yaml": ["${net}"]}],
        "outs": ["models/${key}"],
        "metrics": [{"metrics/train-${key}.json": {"cache": False}}],
    },
}
LOSS = '"""The loss."""\n\n\ndef loss(x):\n    """Return it."""\n    return x * x\n'


class Killed(Exception):
    pass


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder in ("stages", "dicetalk", "data/mead", "models", "metrics"):
        Path(folder).mkdir(parents=True)
    Path("stages/train.py").write_text("print(1)\n")
    Path("dicetalk/loss.py").write_text(LOSS)
    Path("data/mead/shard").write_text("clips")
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": STAGE}}))
    Path("weights.yaml").write_text("whisper: {sha256: aa}\nother: {sha256: bb}\n")
    write_params()
    return tmp_path


def write_params(lr: float = 0.1, threads: int = 1) -> None:
    values = {"train": {"lr": lr}, "index": {"mead": {"root": "raw"}}, "net": "whisper"}
    Path("params.yaml").write_text(yaml.safe_dump({**values, "compute": {"threads": threads}}))


def start(killed: bool = False, resume: str = "stop", also: tuple = ()) -> tuple[str, str]:
    """Run the stage; return its folder's name and what earlier attempts left there."""
    with stage_work("train@mead", resume, also) as work:  # type: ignore[arg-type]
        note = work.folder / "step"
        before = note.read_text() if note.is_file() else ""
        note.write_text(f"{before}x")
        if killed:
            raise Killed
        Path("models/mead").mkdir(exist_ok=True)
        Path("models/mead/weights").write_text(before)
        Path("metrics/train-mead.json").write_text(json.dumps({"loss": 1.0, "attempts": len(before)}))
    return work.folder.name, before


def kill() -> str:
    with pytest.raises(Killed):
        start(killed=True)
    [folder] = [path for path in Path("runs").glob("train-mead-*") if (path / "step").is_file()]
    return folder.name


def record() -> None:
    """Do what DVC does when a stage has ended: write its entry of `dvc.lock`."""
    import hashlib

    content = Path("metrics/train-mead.json").read_bytes()
    files = [path for path in Path("models/mead").rglob("*") if path.is_file()]
    outs = [
        {
            "path": "models/mead",
            "md5": f"{0:032}.dir",
            "size": sum(f.stat().st_size for f in files),
            "nfiles": len(files),
        },
        {
            "path": "metrics/train-mead.json",
            "md5": hashlib.md5(content).hexdigest(),
            "size": len(content),
        },
    ]
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"train@mead": {"outs": outs}}}, sort_keys=False))


def test_a_declaration_is_filled_in_for_its_instance(project: Path) -> None:
    declaration = read_declaration("train@mead")
    assert declaration.code == ["stages/train.py", "dicetalk/loss.py"]
    assert declaration.inputs == ["data/mead"]
    assert declaration.params == {
        "train.lr": 0.1,
        "index.mead": {"root": "raw"},
        "weights.yaml:whisper": {"sha256": "aa"},
    }
    assert declaration.outs == ["models/mead", "metrics/train-mead.json"]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (LOSS.replace("return x", "# squared\n    return x"), True),
        (LOSS.replace("Return it.", "Return the square."), True),
        (LOSS.replace('"""The loss."""\n\n\n', ""), True),
        (LOSS.replace("x * x", "(x *\n        x)"), True),
        (LOSS.replace("x * x", "x + x"), False),
        (LOSS.replace("def loss(x)", "def loss(x, y=0)"), False),
        (LOSS + 'NAME = """text"""\n', False),
    ],
)
def test_comments_and_docstrings_are_no_code(project: Path, change: str, same: bool) -> None:
    before = code_digest(Path("dicetalk/loss.py"))
    Path("dicetalk/loss.py").write_text(change)
    assert (code_digest(Path("dicetalk/loss.py")) == before) is same


def test_content_is_what_files_hold_and_are_called(project: Path) -> None:
    def digest() -> str:
        return content_hashes(["data/mead"])["data/mead"]

    first = digest()
    Path("data/mead/.shard-abcd").write_text("half")
    assert digest() == first
    Path("data/mead/shard").write_text("other")
    changed = digest()
    assert changed != first
    Path("data/mead/shard").rename("data/mead/renamed")
    assert digest() not in (first, changed)
    Path("data/mead/renamed").write_text("clips")
    Path("data/mead/renamed").rename("data/mead/shard")
    assert digest() == first
    Path("runs/content.json").write_text("[1, broken")
    assert digest() == first


def test_a_killed_stage_goes_on(project: Path) -> None:
    name = kill()
    assert kill() == name
    assert start() == (name, "xx")


def test_how_it_is_computed_and_comments_change_nothing(project: Path) -> None:
    name = kill()
    write_params(threads=8)
    Path("dicetalk/loss.py").write_text(LOSS + "# a comment\n")
    assert start() == (name, "x")


@pytest.mark.parametrize("part", ["params", "weights", "input"])
def test_other_parameters_or_data_begin_anew_and_say_so(
    project: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = kill()
    if part == "params":
        write_params(lr=0.2)
    elif part == "weights":
        Path("weights.yaml").write_text("whisper: {sha256: cc}\n")
    else:
        Path("data/mead/shard").write_text("other clips")
    key = {"params": "train.lr", "weights": "weights.yaml:whisper.sha256", "input": "data/mead"}[part]
    other, before = start()
    assert other != name and before == ""
    message = capsys.readouterr().err
    assert f"runs/{name}, because of other {key};" in message
    assert (Path("runs") / name / "step").is_file()  # days of work are the user's to remove


def test_another_network_of_the_machine_begins_anew(project: Path) -> None:
    first, _ = start(also=("rife",))
    second, before = start(also=("linear",))
    assert first != second and before == ""


def test_changed_code_stops_and_names_the_module_and_both_ways_on(project: Path) -> None:
    name = kill()
    Path("dicetalk/loss.py").write_text(LOSS.replace("x * x", "-x"))
    with pytest.raises(DicetalkError) as caught:
        start()
    message = str(caught.value)
    assert "\n" not in message and message.startswith(
        f"dicetalk/loss.py changed since the unfinished run runs/{name}"
    )
    assert "start-over" in message and "accept-code-change" in message
    assert (Path("runs") / name / "step").read_text() == "x"
    Path("dicetalk/loss.py").write_text(LOSS)
    assert start() == (name, "x")


def test_changed_code_is_accepted_and_noted(project: Path) -> None:
    name = kill()
    Path("dicetalk/loss.py").write_text(LOSS.replace("x * x", "-x"))
    with stage_work("train@mead", "accept-code-change") as work:
        assert work.tags() == {"dicetalk.resumed_across_code_changes": "dicetalk/loss.py"}
        assert (work.folder / "step").read_text() == "x" and work.folder.name != name
        Path("models/mead").mkdir()
        Path("metrics/train-mead.json").write_text('{"loss": 1.0}')
    expected = ["dicetalk/loss.py"]
    assert read_json(Path("metrics/train-mead.json")) == {
        "loss": 1.0,
        "resumed_across_code_changes": expected,
    }
    assert read_json(Path("models/mead/resumed_across_code_changes.json")) == expected


def test_consent_is_remembered_by_the_runs_that_follow(project: Path) -> None:
    kill()
    Path("dicetalk/loss.py").write_text(LOSS.replace("x * x", "-x"))
    with pytest.raises(Killed):
        start(killed=True, resume="accept-code-change")
    _, before = start()  # `stop` again: what it was agreed to is no change any more
    assert before == "xx"
    assert read_json(Path("metrics/train-mead.json"))["resumed_across_code_changes"] == ["dicetalk/loss.py"]


def test_starting_over_removes_the_old_work(project: Path) -> None:
    name = kill()
    Path("dicetalk/loss.py").write_text(LOSS.replace("x * x", "-x"))
    other, before = start(resume="start-over")
    assert before == "" and other != name and not (Path("runs") / name).exists()


def test_finished_work_outlasts_a_kill_before_dvc_recorded_it(project: Path) -> None:
    name, _ = start()
    assert start() == (name, "x")  # dvc.lock says nothing of it


def test_recorded_work_is_gone(project: Path) -> None:
    name, _ = start()
    record()
    shutil.rmtree("models/mead")  # as DVC does before it runs a stage
    again, before = start()  # forced, or after a change and back
    assert (again, before) == (name, "")


@pytest.mark.parametrize("cut_characters", range(1, 60))
def test_half_an_entry_records_nothing(project: Path, cut_characters: int) -> None:
    """Wherever a kill cut `dvc.lock`: the finished work is still there when DVC runs the stage again."""
    name, _ = start()
    record()
    lock = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(lock[:-cut_characters])
    shutil.rmtree("models/mead")  # as DVC does before it runs a stage, with whatever is an output
    Path("metrics/train-mead.json").unlink()
    assert start() == (name, "x")


def test_a_forced_run_with_the_same_result_leaves_nothing(project: Path) -> None:
    start()
    record()
    start()
    assert not list(Path("runs").glob("train-mead-*"))  # dvc.lock will not change: nothing to wait for
    assert start()[1] == ""


def test_finished_work_of_other_code_is_nobodys(project: Path) -> None:
    name, _ = start()
    Path("dicetalk/loss.py").write_text(LOSS.replace("x * x", "-x"))
    other, before = start()
    assert before == "" and other != name and not (Path("runs") / name).exists()


def test_half_written_files_are_swept_by_their_owner(project: Path) -> None:
    name = kill()
    own = Path("runs") / name / ".step-000001-abcd1234"
    own.mkdir()
    beside = [Path("models/.mead-abcd1234"), Path("metrics/.train-mead-abcd.json")]
    others = [Path("models/.mead2-abcd1234"), Path("models/.gitignore"), Path("models/mead-abcd1234")]
    for path in [*beside, *others]:
        path.write_text("half")
    remove_leftovers("train@mead")
    start()
    assert not own.exists() and not any(path.exists() for path in beside)
    assert all(path.exists() for path in others)


def _hold(ready: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event) -> None:
    with stage_work("train@mead", "stop"):
        ready.set()
        done.wait(60)


def test_two_processes_do_not_share_work(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.1)
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(ready, done))
    process.start()
    try:
        assert ready.wait(60)
        with pytest.raises(DicetalkError, match="another process is at work on train@mead"):
            start()
    finally:
        done.set()
        process.join()
    start()


def test_a_result_is_refused_when_its_code_was_edited_in_between(project: Path) -> None:
    with pytest.raises(DicetalkError, match="dicetalk/loss.py changed while train@mead ran"):
        with stage_work("train@mead", "stop") as work:
            Path("dicetalk/loss.py").write_text(LOSS.replace("x * x", "x + x"))
            (work.folder / "step-1").mkdir()
    Path("dicetalk/loss.py").write_text(LOSS)
    with stage_work("train@mead", "stop") as work:
        assert (work.folder / "step-1").is_dir()  # as if nothing had happened


def test_a_result_is_refused_when_its_parameters_were_edited_in_between(project: Path) -> None:
    with pytest.raises(DicetalkError, match="train.lr changed while train@mead ran"):
        with stage_work("train@mead", "stop"):
            Path("params.yaml").write_text(Path("params.yaml").read_text().replace("lr: ", "lr: 1"))


def test_a_comment_may_be_edited_in_between(project: Path) -> None:
    with stage_work("train@mead", "stop") as work:
        Path("dicetalk/loss.py").write_text(f"# Once more.\n{LOSS}")
    assert (work.folder / "finished.json").is_file() and work.code_changes == []


@pytest.mark.parametrize("content", ["", '{"code": {', "[]", "{}"])
def test_work_is_found_although_the_note_of_what_it_is_made_of_is_damaged(
    project: Path, content: str
) -> None:
    with pytest.raises(Killed), stage_work("train@mead", "stop") as work:
        (work.folder / "step-1").mkdir()
        raise Killed
    (work.folder / "made_of.json").write_text(content)
    with stage_work("train@mead", "stop") as again:
        assert (again.folder / "step-1").is_dir()
        assert json.loads((again.folder / "made_of.json").read_text())["params"]


def test_a_flipped_bit_in_a_note_of_finished_work_does_not_remove_it(project: Path) -> None:
    with stage_work("train@mead", "stop") as work:
        (work.folder / "step-1").mkdir()
    marker = work.folder / "finished.json"
    content = marker.read_text()
    marker.write_text(content.replace('"entry": "', '"entry": "0'))
    assert marker.read_text() != content
    with stage_work("train@mead", "stop") as again:
        assert (again.folder / "step-1").is_dir()


def test_a_remembered_hash_with_a_flipped_bit_is_not_believed(project: Path) -> None:
    before = content_hashes(["data/mead"])
    cache = Path("runs/content.json")
    digest = content_hashes(["data/mead/shard"])["data/mead/shard"]
    flipped = digest.replace(digest[5], "0" if digest[5] != "0" else "1")
    cache.write_text(cache.read_text().replace(digest, flipped))
    assert content_hashes(["data/mead"]) == before


@pytest.mark.parametrize(("edited", "refused"), [(LOSS.replace("*", "+"), True), (f"# Hm.\n{LOSS}", False)])
def test_a_stage_without_work_is_refused_likewise(
    project: Path, monkeypatch: pytest.MonkeyPatch, edited: str, refused: bool
) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@mead")
    with pytest.raises(DicetalkError, match="loss.py changed") if refused else nullcontext(), unedited():
        Path("dicetalk/loss.py").write_text(edited)


def test_half_an_entry_does_not_remove_finished_work(project: Path) -> None:
    with stage_work("train@mead", "stop") as work:
        (work.folder / "step-1").mkdir()
        Path("models/mead").mkdir()
        Path("models/mead/weights").write_text("w")
        Path("metrics/train-mead.json").write_text("{}")
    record()
    whole = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(whole.replace("size: 1", ""))  # as a kill may leave it
    remove_recorded()
    assert work.folder.is_dir()
    Path("dvc.lock").write_text(whole)
    remove_recorded()
    assert not work.folder.is_dir()
