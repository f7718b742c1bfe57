"""Working copies in which tests run the pipeline as users do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from shared_data import REPOSITORY

from dicetalk.runs.declaration import load_yaml


def repository_files() -> list[str]:
    """Return what belongs to the repository, changes that are not committed yet included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.check_output(command, cwd=REPOSITORY, text=True)
    return [name for name in listed.split("\0") if name and (REPOSITORY / name).is_file()]


@dataclass
class Project:
    """A working copy."""

    folder: Path

    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return os.environ | {"PATH": path, "PYTHONPATH": str(self.folder), "PYTHONUNBUFFERED": "1"}

    def run(self, *command: str, code: int = 0) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(), text=True, capture_output=True, check=False
        )
        assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def repro(self, *arguments: str) -> str:
        return self.run("dvc", "repro", *arguments)

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.folder / file).read_text()
        assert old in text, f"{file} has changed: write another edit"
        (self.folder / file).write_text(text.replace(old, new))

    def set_params(self, **changes: Any) -> None:
        """Change values of `params.yaml`; in a name, `__` stands for the dot of the key."""
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False  # DVC's parser refuses an address in braces
        path = self.folder / "params.yaml"
        values = json.loads(json.dumps(yaml.load(path.read_text())))  # aliases become sections of their own
        for key, value in changes.items():
            *sections, name = key.split("__")
            target = values
            for section in sections:
                target = target[section]
            target[name] = value
        yaml.default_flow_style = False  # DVC cannot read an address between braces
        with open(path, "w") as stream:
            yaml.dump(values, stream)

    def outs(self, stage: str | None = None) -> dict[str, str]:
        """Hashes of everything the stage, or all stages, wrote, as `dvc.lock` has them."""
        entries = load_yaml(self.folder / "dvc.lock")["stages"]
        chosen = entries if stage is None else {stage: entries[stage]}
        return {out["path"]: out["md5"] for entry in chosen.values() for out in entry["outs"]}

    def changed(self) -> set[str]:
        """Stages that would run, whatever the reason."""
        return set(json.loads(self.run("dvc", "status", "--json").strip().splitlines()[-1]))


def finished_smoke_run(repository: Path, folder: Path) -> Project:
    """Run the smoke profile in a clone and commit it; `DICETALK_SMOKE_RUN` names one that has been run."""
    project = Project(folder)
    if finished := os.environ.get("DICETALK_SMOKE_RUN"):
        shutil.copytree(finished, folder, symlinks=True)
    else:
        subprocess.run(["git", "clone", "--quiet", repository, folder], check=True)
        shutil.copy(folder / "profiles/smoke.yaml", folder / "params.yaml")
    project.run("git", "config", "user.email", "test@example.com")
    project.run("git", "config", "user.name", "Test")
    project.repro()
    project.run("git", "commit", "--quiet", "--all", "--message", "A finished smoke run")
    return project
