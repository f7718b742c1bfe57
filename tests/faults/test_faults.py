"""Faults are injected and the same command is run again: a few at once, a seeded part as slow tests.

All of them: `make faults`.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fault_damage import damage
from fault_list import all_faults
from fault_projects import Templates, contents, make_tiny
from fault_table import BEGIN, END, table, write_table
from fault_trial import TRACEBACK, Fault, Finished, Verdict, attempt
from projects import Project

CHOSEN_TINY, CHOSEN_SMOKE = 16, 1
MOUNTS = os.geteuid() == 0  # a small file system takes root, whom CI has


def chosen() -> list[Fault]:
    possible = [fault for fault in all_faults() if MOUNTS or "full disk" not in fault.kind]
    tiny = [fault for fault in possible if fault.template != "smoke"]
    smoke = [fault for fault in possible if fault.template == "smoke"]
    rng = random.Random(0)
    return rng.sample(tiny, CHOSEN_TINY) + rng.sample(smoke, CHOSEN_SMOKE)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory, smoke_run: Project) -> Templates:
    return Templates(tmp_path_factory.mktemp("faults"), smoke_run)


@pytest.mark.slow
@pytest.mark.parametrize("fault", chosen(), ids=lambda fault: fault.name)
def test_the_same_command_gives_the_same_bits(fault: Fault, templates: Templates) -> None:
    verdict = attempt(fault, templates)
    assert verdict.is_good, verdict


@pytest.mark.slow
def test_a_defect_would_be_seen(templates: Templates) -> None:
    def forget_everything(project: Project) -> None:
        shutil.rmtree(project.folder / "runs")

    def spoil(project: Project) -> None:
        """Change what the stage reads, and hide it from DVC as a silent error of a disk would."""
        path = project.folder / "stages/tiny_measure.py"
        path.write_text(path.read_text().replace("float(seen", "2 * float(seen"))

    killed = next(fault for fault in all_faults() if fault.name == "SIGKILL-to-group:measure:0")
    lost = attempt(replace(killed, number=90, between=forget_everything), templates)
    assert lost.lost and lost.result == "same bits" and not lost.is_good
    wrong = attempt(replace(killed, number=91, before=spoil), templates)
    assert wrong.result == "wrong" and not wrong.is_good
    never = {"FAULT_AT": "after|no such file|SIGKILL|stage"}
    missed = attempt(replace(killed, number=92, attack=None, variables=never), templates)
    assert missed.result == "not injected"


class Measuring:
    """The tiny project's last stage by hand, without DVC: a run takes a second."""

    def __init__(self, folder: Path) -> None:
        self.project = make_tiny(folder, has_dvc=False)
        self.outs = ["outputs/measured", "metrics/measure.json"]
        (folder / "models/tiny").mkdir(parents=True)
        (folder / "models/tiny/model.safetensors").write_bytes(b"weights")
        _write_clips(folder / "data/processed/tiny")

    def run(self, fault_at: str = "") -> subprocess.CompletedProcess[str]:
        variables = {"FAULT_AT": fault_at} if fault_at else {}
        return subprocess.run(
            [sys.executable, "-m", "stages.tiny_measure"],
            cwd=self.project.folder, env=self.project.environment() | variables,
            text=True, capture_output=True, check=False,
        )  # fmt: skip

    def work(self) -> list[str]:
        log = self.project.folder / "work.log"
        lines = log.read_text().splitlines() if log.is_file() else []
        log.unlink(missing_ok=True)
        return lines

    def result(self) -> dict[str, str]:
        return contents(self.project, self.outs)


def _write_clips(folder: Path) -> None:
    import numpy as np
    from fake_face import RATE, noise

    from dicetalk.data.shards import Sample, encode_audio, encode_landmarks, write_shard

    members = {"video.mp4": b"none", "landmarks.npy": encode_landmarks(np.zeros((1, 68, 2)))}
    samples = [
        Sample(f"c{number}", {}, {**members, "audio.wav": encode_audio(noise(0.1, 0.1 * (number + 1)), RATE)})
        for number in range(4)
    ]
    folder.mkdir(parents=True)
    write_shard(folder / "shard-000000.tar", iter(samples))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    measuring = Measuring(tmp_path_factory.mktemp("unbroken") / "project")
    assert measuring.run().returncode == 0 and len(measuring.work()) == 4
    return measuring.result()


@pytest.mark.parametrize(
    ("moment", "finished"), [("half|*.npz|SIGKILL|stage", 0), ("half|outputs/measured|SIGKILL|stage", 4)]
)
def test_a_killed_stage_goes_on(tmp_path: Path, unbroken: dict[str, str], moment: str, finished: int) -> None:
    measuring = Measuring(tmp_path / "project")
    assert measuring.run(moment).returncode == -9
    measuring.work()
    again = measuring.run()
    assert again.returncode == 0 and TRACEBACK not in again.stderr
    assert len(measuring.work()) == 4 - finished
    assert measuring.result() == unbroken


def test_a_full_disk_is_one_line(tmp_path: Path, unbroken: dict[str, str]) -> None:
    measuring = Measuring(tmp_path / "project")
    first = measuring.run("full|outputs/measured|SIGKILL|stage")
    assert first.returncode == 1 and TRACEBACK not in first.stderr
    assert [line for line in first.stderr.splitlines() if "free space" in line] == first.stderr.splitlines()[
        -1:
    ]
    assert len(measuring.work()) == 4
    assert measuring.run().returncode == 0 and measuring.work() == []
    assert measuring.result() == unbroken


def test_what_was_lost_is_counted(tmp_path: Path) -> None:
    for step in (4, 8):
        (tmp_path / f"runs/train-0/step-{step:06d}").mkdir(parents=True)
    fault = Fault("kill", "train", stage="train")
    finished = Finished(Project(tmp_path), fault)
    assert finished.lost([f"train {step}" for step in range(8, 24)], "") == 0
    assert finished.lost([f"train {step}" for step in range(4, 24)], "") == 4
    damaged = Finished(Project(tmp_path), replace(fault, skipped_checkpoints=1))
    assert damaged.lost([f"train {step}" for step in range(4, 24)], "") == 0
    assert finished.lost([], "learn: resuming at step 4/12") == 4


def test_clips_are_counted_without_what_lies_beside_them(tmp_path: Path) -> None:
    folder = tmp_path / "runs/preprocess-tiny"
    folder.mkdir(parents=True)
    for name in ("a.tar", "a.tar.sha256", "b.json", "c.crashed.json", "made_of.json", ".d-1234.tar"):
        (folder / name).touch()
    finished = Finished(Project(tmp_path), Fault("kill", "clips", stage="clips"))
    assert finished.count == 2
    assert finished.lost([f"clips clip_{number}" for number in range(6)], "") == 0
    assert finished.lost([f"clips clip_{number}" for number in range(7)], "") == 1


@pytest.mark.parametrize(("how", "content"), [("flipped", b"abgd"), ("cut", b"ab"), ("emptied", b"")])
def test_damage_is_what_it_says(tmp_path: Path, how: str, content: bytes) -> None:
    (tmp_path / "file").write_bytes(b"abcd")  # the third byte, 0x63, becomes 0x67
    damage(tmp_path / "file", how)
    assert (tmp_path / "file").read_bytes() == content


def test_the_table_counts_each_end(tmp_path: Path) -> None:
    verdicts = [
        Verdict("a", "kill", "train", "same bits"),
        Verdict("b", "kill", "train", "wrong", lost=3, tracebacks=1),
        Verdict("c", "cut", "lock", "told and repaired"),
        Verdict("d", "cut", "lock", "not injected"),
    ]
    rows = table(verdicts).splitlines()
    assert rows[2] == "| kill | train | 2 | 1 | 0 | 1 | 0 | 1 | 1 |"
    assert rows[3] == "| cut | lock | 1 | 0 | 1 | 0 | 0 | 0 | 0 |"
    assert rows[4] == "| **all** |  | 3 | 1 | 1 | 1 | 0 | 1 | 1 |"
    page = tmp_path / "page.md"
    page.write_text(f"# A\n{BEGIN}\nold\n{END}\nrest\n")
    write_table(verdicts, page)
    assert page.read_text() == f"# A\n{BEGIN}\n{table(verdicts)}\n{END}\nrest\n"


def test_names_are_unique_and_many() -> None:
    faults = all_faults()
    assert len({fault.name for fault in faults}) == len(faults) >= 120
    assert sum(fault.template == "smoke" for fault in faults) >= 20
