"""Working copies in which DVC experiments run side by side.

`dvc exp run --temp` in one repository cannot be started twice at a time: all pass through one stash, and one
may take the other's entry. Clones that share DVC's cache can. Their experiments are fetched into the main
repository, where `dvc exp show` finds them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from dicetalk.config import load_params
from dicetalk.errors import DicetalkError

from .. import dvc
from .plan import TARGET, Run, as_hydra
from .record import RECORD, read_metrics


class WorkingCopy:
    """A clone of the repository for one experiment after another.

    Args:
        root: the repository.
        folder: where the clone is, or will be.
    """

    def __init__(self, root: Path, folder: Path):
        self.root, self.folder = root.resolve(), folder.resolve()

    def prepare(self) -> None:
        """Clone, or renew a clone that was left behind; it then has the repository's commit and cache.

        `runs/` of an old clone stays, so that a stopped training continues.
        """
        if not (self.folder / ".git").is_dir():
            shutil.rmtree(self.folder, ignore_errors=True)  # a clone that was stopped halfway
            git(self.root, "clone", "--quiet", "--no-checkout", str(self.root), str(self.folder))
        git(self.folder, "fetch", "--quiet", "origin", "HEAD")
        git(self.folder, "checkout", "--quiet", "--force", "--detach", head(self.root))
        for key in ("user.name", "user.email"):  # of this repository alone, perhaps
            done = subprocess.run(["git", "config", key], cwd=self.root, capture_output=True, text=True)
            if done.returncode == 0:
                git(self.folder, "config", key, done.stdout.strip())
        local = self.root / ".dvc/config.local"
        if local.is_file():
            shutil.copyfile(local, self.folder / ".dvc/config.local")
        cache = self.root / dvc.run("cache", "dir", folder=self.root, echo=False).strip().splitlines()[-1]
        dvc.run("cache", "dir", "--local", str(cache.resolve()), folder=self.folder, echo=False)

    def run(self, run: Run, environment: Mapping[str, str], log_file: Path) -> float:
        """Run the experiment and bring it into the repository; return the seconds it took.

        Args:
            run: the variant and seed.
            environment: variables for the stages.
            log_file: receives what DVC and the stages print.

        Raises:
            DicetalkError: when a stage fails, or DVC understood an override otherwise than we do.
        """
        started = time.monotonic()
        git(self.folder, "checkout", "--quiet", "--force", "--detach", head(self.root))
        settings = [
            part
            for key, value in run.overrides.items()
            for part in ("--set-param", f"{key}={as_hydra(value)}")
        ]
        dvc.run(
            "exp", "run", "--name", run.experiment, "--allow-missing", *settings, TARGET,
            folder=self.folder, environment=environment, log_file=log_file, echo=False,
        )  # fmt: skip
        if load_params(self.folder / "params.yaml") != run.params:
            raise DicetalkError(f"DVC set other parameters than meant; compare {self.folder}/params.yaml.")
        if self.hand_over(run) is None:
            raise DicetalkError(f"DVC left no experiment {run.experiment} in {self.folder}; see {log_file}.")
        shutil.rmtree(self.folder / "runs", ignore_errors=True)  # its checkpoints are of no more use
        return time.monotonic() - started

    def hand_over(self, run: Run) -> str | None:
        """Fetch a finished experiment into the repository; return its commit, `None` where there is none."""
        name = reference(self.folder, run.experiment)
        if name is None:
            return None
        git(self.root, "fetch", "--quiet", "--no-write-fetch-head", str(self.folder), f"{name}:{name}")
        return git(self.root, "rev-parse", name)


def reference(repository: Path, experiment: str) -> str | None:
    """Return the full git reference of a DVC experiment, of whatever commit it was derived from."""
    names = git(repository, "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    return next((name for name in names if name.rpartition("/")[2] == experiment), None)


def results(root: Path, experiment: str) -> tuple[str, dict[str, float]] | None:
    """Return commit and metrics of an experiment the repository has, else `None`."""
    name = reference(root, experiment)
    if name is None:
        return None
    files = (
        json.loads(git(root, "show", f"{name}:metrics/{stage}.json"))
        for stage in ("evaluate", "train_embedder")
    )
    return git(root, "rev-parse", name), read_metrics(*files)


def check_clean(root: Path) -> None:
    """Refuse to start from changes that no commit has: experiments are derived from the last commit.

    Raises:
        DicetalkError: naming the changed files.
    """
    lines = git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", f":!{RECORD}").splitlines()
    if lines:
        shown = ", ".join(line[2:].strip() for line in lines[:5]) + (", ..." if len(lines) > 5 else "")
        raise DicetalkError(
            f"Ablations start from the last commit, and {len(lines)} files differ from it ({shown}). Commit "
            "or revert them; after `dvc repro` that means dvc.lock and metrics/."
        )


def head(repository: Path) -> str:
    """Return the commit of a repository."""
    return git(repository, "rev-parse", "HEAD")


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder and return what it printed.

    Raises:
        DicetalkError: when git fails.
    """
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise DicetalkError(f"`git {' '.join(arguments)}` in {folder} failed: {done.stderr.strip()}")
    return done.stdout.strip()
