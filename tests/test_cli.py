"""The command line: it teaches, and mistakes are one line and an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import dicetalk
from dicetalk import weights
from dicetalk.__main__ import main
from dicetalk.cli.app import app
from dicetalk.cli.doctor import Finding, examine

runner = CliRunner()


def call(*arguments: str, code: int = 0) -> str:
    result = runner.invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weights anywhere but in the folder that is returned."""
    monkeypatch.setenv("DICETALK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DICETALK_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def test_version() -> None:
    assert call("--version") == f"dicetalk {dicetalk.__version__}\n"


@pytest.mark.parametrize("command", ["generate", "preprocess", "evaluate"])
def test_help_of_the_main_commands_has_an_example(command: str) -> None:
    assert f"dicetalk {command} --" in call(command, "--help").split("Options")[0]


def test_help_answers_without_loading_torch() -> None:
    code = (
        "import sys, dicetalk.cli.app as c; from typer.testing import CliRunner as R;"
        "R().invoke(c.app, ['generate', '--help']);"
        "heavy = 'torch', 'librosa', 'mlflow', 'prefect', 'transformers', 'cv2';"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_error_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dicetalk", "weights", "fetch", "nothing"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("Unknown weights 'nothing'") and "Traceback" not in error


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["dicetalk", "--debug", "weights", "fetch", "nothing"])
    with pytest.raises(dicetalk.errors.DicetalkError):
        main()


def test_generate_refuses_a_missing_picture_before_loading_anything(tmp_path: Path) -> None:
    output = call("generate", "--image", "no.png", "--audio", "no.wav", "--out", "x.mp4", code=2)
    assert "no.png" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--emotion", "happpy"], "Unknown emotion 'happpy'"),
        (["--emotion", "neutral", "--level", "3"], "not 3"),
        (["--out", "x.txt"], ".mp4"),
    ],
)
def test_generate_refuses_a_wrong_option_before_loading_anything(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    file = tmp_path / "any"
    file.touch()
    given = ["generate", "--image", str(file), "--audio", str(file), "--out", "x.mp4", "--model", "absent"]
    result = runner.invoke(app, [*given, *arguments])
    assert result.exit_code == 1 and message in str(result.exception)


def test_preprocess_does_not_replace_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    (tmp_path / "videos").mkdir()
    arguments = ["preprocess", "--input", str(tmp_path / "videos"), "--output", str(tmp_path / "mine")]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1 and "did not write" in str(result.exception)
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_weights_list_names_every_network_and_licence(empty_machine: Path) -> None:
    output = call("weights", "list")
    for name in weights.registry():
        assert name in output
    assert "CC BY-NC-SA 4.0" in output


def test_weights_verify_reports_what_is_missing_or_wrong(empty_machine: Path) -> None:
    assert "facemesh: missing" in call("weights", "verify", "facemesh", code=1)
    (empty_machine / "facemesh").write_bytes(b"not a network")
    assert "facemesh: not verified" in call("weights", "verify", "facemesh", code=1)


def test_doctor_names_a_wrong_parameter_and_fails(tmp_path: Path) -> None:
    broken = tmp_path / "params.yaml"
    broken.write_text("profile: 3\n")
    output = call("doctor", "--params", str(broken), code=1)
    assert "profile: should be a valid string" in output and "make profile P=demo" in output


def test_doctor_finds_this_machine_fit_for_the_demo(repository: Path, empty_machine: Path) -> None:
    findings = {finding.name: finding for finding in examine(repository / "profiles/demo.yaml")}
    assert findings["codecs"].state == "ok" and findings["torch"].state == "ok"
    assert findings["weights facemesh"] == Finding(
        "weights facemesh",
        "note",
        "not here yet; the stage that needs them fetches them",
        "dicetalk weights fetch facemesh",
    )
    assert findings["data"].state == "ok"


def test_doctor_says_where_the_paper_profile_expects_data(repository: Path, empty_machine: Path) -> None:
    findings = {finding.name: finding for finding in examine(repository / "profiles/paper.yaml")}
    assert findings["data MEAD"].state == "fail" and "index.mead.root" in findings["data MEAD"].fix
    assert "weights whisper-tiny" in findings
