"""What a wheel installs: names of this project only, with every file the code reads beside itself."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from projects import repository_files
from shared_data import REPOSITORY

# Folders of the checkout and where a wheel has them.
INSTALLED = {"dicetalk": "dicetalk", "stages": "dicetalk/stages", "pipelines": "dicetalk/pipelines"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy, because setuptools leaves a `build/` whose old files the next wheel would have."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in repository_files():
        if name.startswith((*INSTALLED, "setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((REPOSITORY / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", copy, copy], check=True, timeout=120)
    (file,) = copy.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """Return the unpacked wheel, as `site-packages` would have it."""
    folder = wheel.parent / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_a_wheel_has_every_file_of_the_checkout_under_one_name(installed: Path) -> None:
    (info,) = installed.glob("*.dist-info")
    assert {path.name for path in installed.iterdir()} == {"dicetalk", info.name}
    expected = {name for name in repository_files() if name.split("/")[0] in INSTALLED}
    expected = {name.replace(top, INSTALLED[top], 1) for name in expected for top in [name.split("/")[0]]}
    found = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert {name for name in found if name.startswith("dicetalk/")} == expected
    assert "dicetalk/py.typed" in expected


def test_stages_and_flows_of_a_wheel_leave_local_folders_alone(installed: Path, tmp_path: Path) -> None:
    """As anybody has them where `dicetalk` is started."""
    for name in ("stages", "pipelines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('imported a folder of the user')\n")
    names = [path.stem for path in (installed / "dicetalk/stages").glob("[a-z]*.py")]
    modules = [*(f"stages.{name}" for name in names), "pipelines.ablate", "pipelines.serve"]
    assert len(modules) > 15
    code = ["import dicetalk", f"assert dicetalk.__file__.startswith({str(installed)!r})"]
    code += [f"import dicetalk.{module}" for module in modules]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(installed), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
