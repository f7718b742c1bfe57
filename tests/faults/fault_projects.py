"""Projects to break: a tiny pipeline of the real machinery, at each stage, and a finished smoke run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from projects import Project, finished_smoke_run

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = Path(__file__).parent / "tiny"
STAGES = ("clips", "encode", "train", "measure")
NUM_CLIPS, CLIPS_PER_SHARD = 8, 2
CHECKPOINT_STEPS = 4
PAGE_BYTES = 4096
# An edit that changes the result of the training.
CODE_EDIT = ("stages/tiny_train.py", "x.sum(dim=1, keepdim=True)", "x.mean(dim=1, keepdim=True)")
# Finished trainings that are done in another way than the others.
VARIANTS: dict[str, Callable[[Project], None]] = {
    "finished-two-processes": lambda project: project.set_params(compute__learn_bank__num_processes=2),
    "edited": lambda project: project.edit(*CODE_EDIT),
    "other-lr": lambda project: project.set_params(learn_bank__training__lr=0.02),
}


def make_tiny(folder: Path, has_dvc: bool = True) -> Project:
    """Make the tiny project, of which nothing has run yet; without DVC, no raw clips either."""
    project = Project(folder)
    unwanted = shutil.ignore_patterns("*.pyc", "__pycache__")
    shutil.copytree(REPOSITORY / "dicetalk", folder / "dicetalk", ignore=unwanted)
    shutil.copytree(REPOSITORY / "stages", folder / "stages", ignore=unwanted)
    for module in TINY.glob("tiny_*.py"):
        shutil.copy(module, folder / "stages")
    shutil.copy(REPOSITORY / "tests/data/fake_face.py", folder / "stages/tiny_face.py")
    shutil.copy(TINY / "sabotaged_dvc.py", folder)
    shutil.copy(TINY / "dvc.yaml", folder)
    for name in (".dvcignore", ".gitignore", "profiles/smoke.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    (folder / "smoke.yaml").rename(folder / "params.yaml")
    _set_params(project)
    if not has_dvc:
        return project
    _write_inputs(project)
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        project.run(*command)
    return project


def _set_params(project: Project) -> None:
    from fake_face import SETTINGS

    what = {"num_steps": 24, "batch_size": 8, "lr": 0.01, "ema_decay": 0.9, "warmup_steps": 2}
    how = {"threads": 1, "log_every_steps": 2, "validate_every_steps": 8}
    how["checkpoint_every_steps"] = CHECKPOINT_STEPS
    project.set_params(
        preprocess=SETTINGS.model_dump(mode="json") | {"clips_per_shard": CLIPS_PER_SHARD},
        tracking__uri=None,
        **{f"learn_bank__training__{key}": value for key, value in what.items()},
        **{f"compute__learn_bank__{key}": value for key, value in how.items()},
    )


def _write_inputs(project: Project) -> None:
    from fake_face import noise, picture, write_clip

    from dicetalk.data.folder import index_folder
    from dicetalk.data.index_table import write_index

    raw = project.folder / "data/raw"
    raw.mkdir(parents=True)
    for number in range(NUM_CLIPS):
        level = 40 + 10 * number
        sound = noise(0.6, 0.1 + 0.05 * number)
        write_clip(raw / f"clip_{number}.mp4", lambda k, level=level: picture(level=level), 15, sound)
    table = index_folder(raw)
    table["split"] = table["split"].fillna("train")
    write_index(table, Path("data/raw"), project.folder / "data/index/tiny.parquet")


class Templates:
    """Finished projects, made when first asked for, to be copied and broken.

    Args:
        folder: where they and the copies are; templates that lie there already are used.
        smoke: a finished smoke run that exists already.
    """

    def __init__(self, folder: Path, smoke: Project | None = None) -> None:
        self.folder = folder
        names = (*(f"before-{stage}" for stage in STAGES), "finished", *VARIANTS, "tracked", "smoke")
        self._made = {name: Project(folder / name) for name in names if (folder / name / ".kept").exists()}
        self._made |= {"smoke": smoke} if smoke else {}
        self._lock = threading.RLock()

    def get(self, name: str) -> Project:
        """Return `before-STAGE`, `finished`, one of `VARIANTS`, `tracked` or `smoke`."""
        with self._lock:
            if name not in self._made:
                if name in VARIANTS:
                    self._make_variant(name)
                else:
                    {"smoke": self._make_smoke, "tracked": self._make_tracked}.get(name, self._make_tiny)()
            return self._made[name]

    def copy(self, name: str, trial: str) -> Project:
        """Return a copy of a template, for one trial."""
        folder = self.folder / "trials" / trial
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.get(name).folder, folder, symlinks=True)
        return Project(folder)

    def _make_tiny(self) -> None:
        project = make_tiny(self.folder / "tiny")
        for stage in STAGES:
            self._keep(project, f"before-{stage}")
            project.repro(stage)
        self._keep(project, "finished")

    def _make_variant(self, name: str) -> None:
        project = self.copy("before-train", name)
        VARIANTS[name](project)
        project.repro("train")
        self._keep(project, name)

    def _make_tracked(self) -> None:
        """`before-train` with a tracking database, whose making takes longer than the training."""
        project = self.copy("before-train", "tracked")
        project.set_params(tracking__uri="sqlite")
        make = "from dicetalk.config import load_params; from dicetalk.tracking.server import connect; "
        project.run("python", "-c", make + "connect(load_params().tracking)")
        self._keep(project, "tracked")

    def _make_smoke(self) -> None:
        self._made["smoke"] = finished_smoke_run(REPOSITORY, self.folder / "smoke")
        (self.folder / "smoke/.kept").touch()

    def _keep(self, project: Project, name: str) -> None:
        shutil.copytree(project.folder, self.folder / name, symlinks=True)
        (self.folder / name / "work.log").unlink(missing_ok=True)
        (self.folder / name / ".kept").touch()
        self._made[name] = Project(self.folder / name)


def contents(project: Project, outs: list[str]) -> dict[str, str]:
    """Return the hash of every file of outputs, as they lie on the disk; hidden files count."""
    hashes = {}
    for out in outs:
        path = project.folder / out
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                name = file.relative_to(project.folder).as_posix()
                hashes[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        if not path.exists():
            hashes[out] = "missing"
    return hashes


def full_disk(folder: Path, spare_kib: int) -> None:
    """Put a file system at a folder that has room for what the folder holds and little more."""
    kept = folder.with_name(f"{folder.name}.kept")
    folder.mkdir(exist_ok=True)
    folder.rename(kept)
    folder.mkdir()
    pages = [-(-path.stat().st_size // PAGE_BYTES) for path in kept.rglob("*") if path.is_file()]
    size_kib = (sum(pages) * PAGE_BYTES) // 1024 + spare_kib
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={max(size_kib, 4)}k", "dicetalk-test", str(folder)], check=True
    )
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    shutil.rmtree(kept)


def free_space(folder: Path) -> None:
    """Make room on such a file system."""
    subprocess.run(["mount", "-o", "remount,size=1g", str(folder)], check=True)


def unmount(project: Project) -> None:
    """Unmount everything below a project."""
    for line in Path("/proc/mounts").read_text().splitlines():
        mounted = line.split()[1]
        if mounted.startswith(f"{project.folder}/"):
            subprocess.run(["umount", "--lazy", mounted], check=False)
