"""Additions as CONTRIBUTING.md shows them, made in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML


def lines_of(repository: Path, heading: str) -> dict[str, list[str]]:
    """Return the lines of the diff below a heading of CONTRIBUTING.md, with their signs, by file."""
    page = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    block = re.search(r"```diff\n(.*?)```", section, re.DOTALL)
    assert block, f"CONTRIBUTING.md shows no diff below {heading!r}"
    files: dict[str, list[str]] = {}
    for line in block[1].splitlines():
        if line.startswith("+++ "):
            files[line.removeprefix("+++ ")] = []
        else:
            list(files.values())[-1].append(line)
    return files


def copy_with(repository: Path, heading: str, folder: Path) -> set[str]:
    """Copy library, stages and graph to `folder`, apply the lines, and return the files that differ."""
    for name in ("dicetalk", "stages"):
        shutil.copytree(repository / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "dvc.yaml", folder)
    for name, lines in lines_of(repository, heading).items():
        _apply(folder / name, lines)
    return {
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and _read(file) != _read(repository / file.relative_to(folder))
    }


def write_params(repository: Path, file: Path, index: dict[str, Any]) -> None:
    """Write the smoke profile with other corpora and an embedder that trains for two small steps."""
    yaml = YAML(typ="safe", pure=True)
    values = yaml.load((repository / "profiles/smoke.yaml").read_text())
    section = values["train_embedder"]
    section |= {"hidden_dim": 16, "embedding_dim": 24, "num_layers": 1, "num_heads": 2, "clip_frames": 8}
    section["training"] = section["training"] | {"num_steps": 2, "batch_size": 8}
    values |= {"synthesize": None, "index": index}
    values["tracking"]["uri"] = None
    with open(file, "w") as stream:
        yaml.dump(values, stream)


def touch(root: Path, *paths: str) -> None:
    """Make empty files; indexing does not open them."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def run(folder: Path, program: str) -> str:
    """Run a program in the copy, with the helpers of these tests, and return what it said."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=_environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stderr + done.stdout


def _apply(file: Path, lines: list[str]) -> None:
    """Write a new file, or change one: an unsigned line, which stands there once, is where to go on."""
    if not file.exists():
        assert all(line.startswith("+") for line in lines), file
        file.write_text("".join(f"{line[1:]}\n" for line in lines))
        return
    text = file.read_text().splitlines()
    place = 0
    for line in lines:
        if line.startswith("+"):
            text.insert(place, line[1:])
            place += 1
            continue
        assert text.count(line[1:]) == 1, f"{file} has changed: {line[1:]!r}"
        place = text.index(line[1:]) + 1
        if line.startswith("-"):
            place -= 1
            del text[place]
    file.write_text("\n".join(text) + "\n")


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def _environment(folder: Path) -> dict[str, str]:
    tests = Path(__file__).resolve().parents[1]
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{tests}"}
