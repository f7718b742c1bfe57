"""Checkpoints outlive power cuts, are believed only undamaged, and go on to the bits of an unbroken run."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_training import Toy, train_toy

from dicetalk import files
from dicetalk.errors import DicetalkError, Stopped
from dicetalk.training import checkpoint
from dicetalk.training.checkpoint import read_log, write_curves
from dicetalk.training.manifest import write_manifest

TENSORS = ("weights.safetensors", "ema.safetensors", "optimizer.safetensors")
FILES = (*TENSORS, "loop.json", "log.jsonl", "manifest.json")


def result(run_dir: Path) -> dict[str, bytes]:
    """What a run of 22 steps leaves; its log says twice what is validated again on resuming."""
    write_curves(run_dir, run_dir / "curves.csv")
    return {name: (run_dir / "step-000022" / name).read_bytes() for name in (*TENSORS, "loop.json")} | {
        "curves.csv": (run_dir / "curves.csv").read_bytes()
    }


def steps(run_dir: Path) -> list[str]:
    return sorted(path.name for path in run_dir.glob("step-*"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    run_dir = tmp_path_factory.mktemp("unbroken")
    train_toy(run_dir)
    return result(run_dir)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in step 17, and so has checkpoints after 10 and 15 steps."""
    run_dir = tmp_path_factory.mktemp("begun")
    train_until_killed(run_dir, 17)
    assert steps(run_dir) == ["step-000010", "step-000015"]
    return run_dir


class Killed(Exception):
    pass


def train_until_killed(run_dir: Path, at: int) -> None:
    def kill(step: int) -> None:
        if step == at:
            raise Killed

    with pytest.raises(Killed):
        train_toy(run_dir, Toy(kill))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = (flip_a_bit, cut, empty, Path.unlink)


@pytest.mark.parametrize("killed_at", [4, 10, 13, 21])
def test_a_killed_run_ends_in_the_bits_of_an_unbroken_one(
    unbroken: dict[str, bytes], tmp_path: Path, killed_at: int
) -> None:
    train_until_killed(tmp_path, killed_at)
    train_toy(tmp_path)
    assert result(tmp_path) == unbroken


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("during_step", [0, 6, 9, 21])
def test_a_signal_ends_a_training_after_the_step_and_the_next_run_goes_on_from_there(
    unbroken: dict[str, bytes], tmp_path: Path, during_step: int, sign: signal.Signals
) -> None:
    """Also between two lines of the log (6), before a validation (9) and in the last step (21)."""
    before = signal.getsignal(sign)
    toy = Toy(lambda step: os.kill(os.getpid(), sign) if step == during_step else None)
    with pytest.raises(Stopped, match=f"stopped at step {during_step + 1}; run the same command") as stopped:
        train_toy(tmp_path, toy)
    assert stopped.value.code == {signal.SIGTERM: 143, signal.SIGINT: 130}[sign]
    assert signal.getsignal(sign) is before
    assert steps(tmp_path)[-1] == f"step-{during_step + 1:06d}"
    assert max(line["step"] for line in read_log(tmp_path) or [{"step": 0}]) <= during_step + 1

    first_steps: list[int] = []
    train_toy(tmp_path, Toy(first_steps.append))
    assert first_steps[:1] == [during_step + 1][: 21 - during_step]
    assert result(tmp_path) == unbroken


def test_a_signal_after_the_last_step_leaves_a_finished_training(
    unbroken: dict[str, bytes], tmp_path: Path
) -> None:
    toy = Toy()
    validate = toy.validate

    def signalled(step: int) -> dict[str, float]:
        if step == 22:
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(step)

    toy.validate = signalled  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        train_toy(tmp_path, toy)
    assert result(tmp_path) == unbroken


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    unbroken: dict[str, bytes],
    begun: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: Callable[[Path], None],
) -> None:
    run_dir = shutil.copytree(begun, tmp_path / "run")
    damage(run_dir / "step-000015" / name)
    resumed_at: list[int] = []
    train_toy(run_dir, Toy(resumed_at.append))
    [line] = [line for line in capsys.readouterr().err.splitlines() if "going on from" in line]
    assert line.startswith(f"{run_dir}/step-000015/{name} is ") and line.endswith("going on from step-000010")
    assert ("missing" if damage is Path.unlink else "damaged (") in line
    assert resumed_at[0] == 10
    assert result(run_dir) == unbroken
    assert steps(run_dir) == ["step-000020", "step-000022"]


def test_a_damaged_checkpoint_goes_as_soon_as_there_is_a_new_one(
    unbroken: dict[str, bytes], begun: Path, tmp_path: Path
) -> None:
    """It would count among the last two, though a training that was stopped again is not there yet."""
    run_dir = shutil.copytree(begun, tmp_path / "run")
    flip_a_bit(run_dir / "step-000015/ema.safetensors")
    with pytest.raises(Stopped, match="at step 12"):
        train_toy(run_dir, Toy(lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 11 else None))
    assert steps(run_dir) == ["step-000010", "step-000012"]
    train_toy(run_dir)
    assert result(run_dir) == unbroken


def test_the_message_tells_hashes_and_sizes(begun: Path, tmp_path: Path) -> None:
    run_dir = shutil.copytree(begun, tmp_path / "run")
    right = files.sha256_file(run_dir / "step-000015/ema.safetensors")
    size = (run_dir / "step-000010/ema.safetensors").stat().st_size
    flip_a_bit(run_dir / "step-000015/ema.safetensors")
    wrong = files.sha256_file(run_dir / "step-000015/ema.safetensors")
    cut(run_dir / "step-000010/ema.safetensors")
    with pytest.raises(DicetalkError) as error:
        train_toy(run_dir)
    assert str(error.value) == (
        f"{run_dir}/step-000015/ema.safetensors is damaged (sha256 {wrong[:12]} instead of {right[:12]}); "
        f"{run_dir}/step-000010/ema.safetensors is damaged ({size // 2} bytes instead of {size}); "
        f"no checkpoint is left, remove {run_dir} to start over."
    )
    assert steps(run_dir) == ["step-000010", "step-000015"]


def test_a_wrong_hash_in_the_manifest_is_told_from_a_wrong_file(begun: Path, tmp_path: Path) -> None:
    run_dir = shutil.copytree(begun, tmp_path / "run")
    for folder in run_dir.glob("step-*"):
        digest = files.sha256_file(folder / "ema.safetensors")
        wrong = digest[:-1] + ("0" if digest[-1] != "0" else "1")
        manifest = folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace(digest, wrong))
    with pytest.raises(DicetalkError, match="step-000015/manifest.json is damaged .*10/manifest.json is dam"):
        train_toy(run_dir)


def test_a_manifest_that_lists_other_files_is_damaged(begun: Path, tmp_path: Path) -> None:
    """However well it agrees with what is there."""
    run_dir = shutil.copytree(begun, tmp_path / "run")
    for folder in run_dir.glob("step-*"):
        (folder / "ema.safetensors").unlink()
        (folder / "manifest.json").unlink()
        write_manifest(folder)
    with pytest.raises(DicetalkError, match="step-000015/manifest.json is damaged"):
        train_toy(run_dir)


def test_the_last_two_and_every_nth_checkpoint_stay(tmp_path: Path) -> None:
    train_toy(tmp_path, num_steps=35, keep_every_steps=10)
    assert steps(tmp_path) == ["step-000010", "step-000020", "step-000030", "step-000035"]


def test_no_other_checkpoint_stays_when_none_is_asked_for(tmp_path: Path) -> None:
    train_toy(tmp_path, num_steps=20, keep_every_steps=0)
    assert steps(tmp_path) == ["step-000015", "step-000020"]


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    """By name, the millionth step comes before the one before it."""
    for step in (999_990, 1_000_000):
        (tmp_path / f"step-{step:06d}").mkdir()
    with pytest.raises(DicetalkError, match=r"step-1000000/manifest.json is missing; .*step-999990/"):
        train_toy(tmp_path)


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name_and_before_others_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    fsync, replace, rmtree = os.fsync, os.replace, shutil.rmtree

    def synced(descriptor: int) -> None:
        calls.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        calls.append(("rename", str(target)))
        replace(source, target)
        # What was synced is known by its place now
        calls[:] = [(verb, path.replace(str(source), str(target))) for verb, path in calls]

    def removed(path: Path, **options: bool) -> None:
        if Path(path).exists():
            calls.append(("remove", str(path)))
        rmtree(path, **options)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    monkeypatch.setattr(shutil, "rmtree", removed)
    train_toy(tmp_path, num_steps=15)

    folder = tmp_path / "step-000015"
    at_rename = calls.index(("rename", str(folder)))
    before, after = (
        calls[calls.index(("rename", f"{tmp_path}/step-000010")) : at_rename],
        calls[at_rename + 1 :],
    )
    for path in (*(folder / name for name in FILES), folder):
        assert ("sync", str(path)) in before
    assert after == [("sync", str(tmp_path)), ("remove", str(tmp_path / "step-000005"))]


def test_a_damaged_log_is_taken_from_the_checkpoint(
    unbroken: dict[str, bytes], begun: Path, tmp_path: Path
) -> None:
    run_dir = shutil.copytree(begun, tmp_path / "run")
    lines = (run_dir / "log.jsonl").read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["step"] for line in lines] == [4, 8, 10, 12, 16]
    wrong = lines[0].replace(b"loss", b"lost")
    damaged = [wrong, b'\xff{"step": 8}\n', b"[1]\n", b'{"step": "8"}\n', b"\0" * 9 + b"\n", *lines[2:]]
    (run_dir / "log.jsonl").write_bytes(b"".join(damaged) + b'{"step": 17, "lo')
    assert [line["step"] for line in read_log(run_dir)] == [4, 10, 12, 16]
    train_toy(run_dir)
    write_curves(run_dir, run_dir / "curves.csv")
    assert (run_dir / "curves.csv").read_bytes() == unbroken["curves.csv"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    toy = Toy()

    bias = toy.modules["last"].bias

    def spoil(parameter: torch.Tensor) -> None:
        parameter.data.fill_(torch.nan)

    def in_the_tenth_step(step: int) -> None:
        if step == 9:  # after its loss, which is finite
            bias.register_post_accumulate_grad_hook(spoil)

    toy.before_loss = in_the_tenth_step
    with pytest.raises(
        DicetalkError, match=r"not finite after step 10: last\.bias\. Lower .* last good state"
    ):
        train_toy(tmp_path, toy)
    assert steps(tmp_path) == ["step-000005"]


def test_the_optimizer_is_stored_by_name(tmp_path: Path) -> None:
    """With one step of gradient g, AdamW has 0.1 g and 0.001 g**2."""
    toy = Toy()
    gradients = {}

    def watch(key: str, parameter: torch.nn.Parameter) -> None:
        parameter.register_hook(lambda gradient: gradients.update({key: gradient.clone()}))

    for name, module in toy.modules.items():
        for key, parameter in module.named_parameters():
            watch(f"{name}.{key}", parameter)
    train_toy(tmp_path, toy, num_steps=1, grad_clip_norm=1e9)
    moments = load_file(tmp_path / "step-000001/optimizer.safetensors")
    kinds = ("exp_avg", "exp_avg_sq", "step")
    assert moments.keys() == {f"{key}.{kind}" for key in gradients for kind in kinds}
    for key, gradient in gradients.items():
        assert moments[f"{key}.step"] == 1
        torch.testing.assert_close(moments[f"{key}.exp_avg"], 0.1 * gradient)
        torch.testing.assert_close(moments[f"{key}.exp_avg_sq"], 0.001 * gradient.square())


@pytest.mark.parametrize("change", ["name", "shape"])
def test_a_checkpoint_of_other_modules_is_refused(begun: Path, tmp_path: Path, change: str) -> None:
    run_dir = shutil.copytree(begun, tmp_path / "run")
    toy = Toy()
    if change == "name":
        toy.modules["new"] = toy.modules.pop("last")
    else:
        toy.modules["last"] = torch.nn.Linear(8, 2)
    with pytest.raises(DicetalkError, match=f"step-000015 holds other modules .* remove {run_dir} to start"):
        train_toy(run_dir, toy)


def test_the_average_of_one_module_is_read_with_its_buffers(begun: Path) -> None:
    found = checkpoint.averaged_weights(begun, "first")
    average = load_file(begun / "step-000015/ema.safetensors")
    weights = load_file(begun / "step-000015/weights.safetensors")
    assert found.keys() == Toy().modules["first"].state_dict().keys()
    assert torch.equal(found["0.weight"], average["first.0.weight"])
    assert not torch.equal(found["0.weight"], weights["first.0.weight"])
    assert torch.equal(found["1.running_mean"], weights["first.1.running_mean"])
