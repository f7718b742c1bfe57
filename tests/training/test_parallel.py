"""Two processes train as one does at the same global batch, stop together, and resume with the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import two_processes
import yaml
from safetensors.torch import load_file

RELATIVE_TOLERANCE = 1e-4  # of every logged number; rounding is all that differs
SECONDS = 900  # on a busy machine
pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS)]  # processes of their own, for minutes


def environment(repository: Path) -> dict[str, str]:
    path = os.pathsep.join([str(repository), str(repository / "tests")])
    return os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def results(
    repository: Path, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What one process saw, and what each of two did."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    two_processes.main(repository, project, one)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [repository / "tests/training/two_processes.py", repository, project, two]
    subprocess.run([*launcher, *map(str, script)], check=True, env=environment(repository), timeout=SECONDS)
    return [json.loads(path.read_text()) for path in (one / "0.json", two / "0.json", two / "1.json")]


def test_the_processes_share_the_examples_of_one(results: list[dict[str, Any]]) -> None:
    one, first, second = (result["drawn"] for result in results)
    assert all(len(half) == 4 for half in first + second)
    assert one == [mine + other for mine, other in zip(first, second, strict=True)]


def assert_same_curve(expected: list[dict[str, float]], curve: list[dict[str, float]]) -> None:
    assert len(expected) > 6
    for wanted, line in zip(expected, curve, strict=True):
        assert line.keys() == wanted.keys()
        for key in wanted.keys() - {"data_seconds"}:
            # Gains are differences of nearly equal losses, relative to them.
            tolerance = {"abs": RELATIVE_TOLERANCE} if "gain" in key else {"rel": RELATIVE_TOLERANCE}
            assert line[key] == pytest.approx(wanted[key], **tolerance), (key, line["step"])


@pytest.mark.parametrize("name", ["line", "accumulated", "diffusion"])
def test_the_curve_is_that_of_one_process(results: list[dict[str, Any]], name: str) -> None:
    assert_same_curve(results[0]["logs"][name], results[1]["logs"][name])


def test_the_curve_depends_on_the_exchange(results: list[dict[str, Any]]) -> None:
    """The tolerance is far below what a wrong average of gradients would change."""
    losses = [line["loss"] for line in results[0]["logs"]["line"] if "loss" in line]
    assert abs(losses[-1] - losses[0]) > 1000 * RELATIVE_TOLERANCE


def test_samples_are_contrasted_with_those_of_other_processes(results: list[dict[str, Any]]) -> None:
    one, first, second = (result["contrastive"] for result in results)
    assert first == pytest.approx(one, rel=1e-5, abs=1e-7) and second == first


def test_all_processes_stop_at_a_loss_that_one_of_them_has(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert "the loss became inf at step 3" in result["nan"]


def test_the_main_process_chooses_the_checkpoint_for_all(results: list[dict[str, Any]]) -> None:
    """Of 8 steps the last 4 are lost, so 8 of 12 are done again."""
    for result in results:
        assert result["damaged"]["steps_again"] == 8
        run_dir = f"{result['out']}/damaged"
        assert result["damaged"]["message"] == (
            f"{run_dir}/step-000012/ema.safetensors is damaged (0 bytes instead of 144); "
            f"{run_dir}/step-000008/ema.safetensors is damaged (0 bytes instead of 144); "
            f"no checkpoint is left, remove {run_dir} to start over."
        )


def test_a_batch_must_be_divisible(results: list[dict[str, Any]]) -> None:
    assert results[0]["odd"] == "trained"
    assert all("7 samples cannot be divided among 2 processes" in result["odd"] for result in results[1:])


def test_other_numbers_of_processes_are_refused(results: list[dict[str, Any]]) -> None:
    assert "num_processes of `compute` is 3, but 1 runs" in results[0]["wrong"]
    assert "num_processes of `compute` is 3, but 2 run." in results[1]["wrong"]


class Stage:
    """`stages.train_diffusion` with two processes in a project of its own."""

    def __init__(self, repository: Path, project: Path, folder: Path, **training: object):
        self.repository, self.folder = repository, folder
        (folder / "models").mkdir(parents=True)
        (folder / "data").symlink_to(project / "data")
        for name in ("backbone", "bank", "embedder", "priors.safetensors"):
            (folder / "models" / name).symlink_to(project / "models" / name)
        for name in ("dicetalk", "stages", "dvc.yaml"):
            (folder / name).symlink_to(repository / name)
        params = tiny_models.tiny_params(
            repository, num_processes=2, mixed_precision="no", log_every_steps=1, **training
        ).model_dump(mode="json")
        params["tracking"]["uri"] = None
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "stages.train_diffusion"],
            cwd=self.folder,
            env=environment(self.repository),
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_checkpoint(self) -> None:
        ends = time.monotonic() + SECONDS
        while not list(self.folder.glob("runs/train_diffusion-*/step-*")):
            assert time.monotonic() < ends
            time.sleep(0.05)

    def workers(self) -> list[int]:
        """Processes that train in this folder, besides the one that was started."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                inside = (process / "cwd").resolve() == self.folder.resolve()
                if inside and b"RANK=" in (process / "environ").read_bytes():
                    found.append(int(process.name))
            except OSError:
                pass
        return found

    def wait_for_end_of_workers(self) -> None:
        ends = time.monotonic() + 60
        while self.workers():
            assert time.monotonic() < ends, "training goes on although its stage was ended"
            time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM], ids=lambda sign: sign.name)
def test_a_killed_stage_ends_its_processes_and_resumes_with_the_same_bits(
    repository: Path, project: Path, tmp_path: Path, sign: signal.Signals
) -> None:
    steps = {"num_steps": 12, "checkpoint_every_steps": 2, "validate_every_steps": 12}
    killed = Stage(repository, project, tmp_path / "killed", **steps)
    process = killed.start()
    killed.wait_for_checkpoint()
    assert len(killed.workers()) == 2
    process.send_signal(sign)
    process.communicate(timeout=60)
    assert process.returncode != 0
    killed.wait_for_end_of_workers()
    assert not (killed.folder / "models/diffusion").exists()

    unbroken = Stage(repository, project, tmp_path / "unbroken", **steps)
    texts = []
    for stage in (killed, unbroken):
        process = stage.start()
        texts.append(process.communicate(timeout=SECONDS)[1])
        assert process.returncode == 0, texts[-1]
    assert "resuming at step" in texts[0] and "resuming" not in texts[1]
    assert texts[0].count("train_diffusion: done in") == 1
    name = "models/diffusion/unet/diffusion_pytorch_model.safetensors"
    ours, expected = load_file(killed.folder / name), load_file(unbroken.folder / name)
    assert all((ours[key] == expected[key]).all() for key in expected)
    assert (killed.folder / "metrics/train_diffusion.json").read_bytes() == (
        unbroken.folder / "metrics/train_diffusion.json"
    ).read_bytes()
    costs = json.loads((killed.folder / "runs/costs/train_diffusion.json").read_text())
    assert costs["seconds"] > 0


@pytest.mark.slow
def test_a_failing_process_fails_the_stage_with_its_message(repository: Path, project: Path, tmp_path: Path):
    stage = Stage(repository, project, tmp_path / "project", num_steps=4, lr=1e30)
    process = stage.start()
    errors = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 1
    assert "the loss became nan at step" in errors
    assert "of 2 ended with exit code 1" in errors and "Traceback" not in errors


@pytest.mark.parametrize("name", ["sharded", "resumed", "divided", "united"])
def test_sharded_training_follows_the_same_curve_also_when_resumed(
    results: list[dict[str, Any]], name: str
) -> None:
    """Up to rounding, which differs each time, unlike without sharding; either continues the other."""
    assert_same_curve(results[0]["logs"]["diffusion"], results[1]["logs"][name])


def test_checkpoints_of_sharded_training_are_whole(results: list[dict[str, Any]]) -> None:
    folder = Path(results[1]["out"])
    for file in ("weights.safetensors", "ema.safetensors"):
        sharded, whole = (
            load_file(folder / name / "step-000006" / file) for name in ("sharded", "diffusion")
        )
        assert {k: v.shape for k, v in sharded.items()} == {k: v.shape for k, v in whole.items()}
