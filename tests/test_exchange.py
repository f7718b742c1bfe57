"""Model folders to the official files and back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import torch

from dicetalk.errors import DicetalkError
from dicetalk.exchange import export_model, import_model
from dicetalk.models.pipeline import DiceTalkPipeline
from dicetalk.tracking import Tracker
from dicetalk.training.finetune import train_diffusion


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    root = tiny_models.write_project(tmp_path_factory.mktemp("project"))
    train_diffusion(tiny_models.tiny_params(repository, num_steps=1), root, root / "run", Tracker())
    return root / "models/dicetalk"


def test_import_reads_what_export_wrote_and_keeps_the_rest(model: Path, tmp_path: Path) -> None:
    files = export_model(model, tmp_path / "official")
    assert sorted(path.name for path in files) == [
        "audio_linear.pth",
        "emo_model.pth",
        "pose_guider.pth",
        "unet.pth",
    ]
    state = torch.load(tmp_path / "official/pose_guider.pth", weights_only=True)
    state["conv_out.bias"] += 1.5
    torch.save(state, tmp_path / "official/pose_guider.pth")

    import_model(tmp_path / "official", model, tmp_path / "imported")
    before, after = (DiceTalkPipeline.from_pretrained(path) for path in (model, tmp_path / "imported"))
    assert torch.equal(after.pose_guider.conv_out.bias, before.pose_guider.conv_out.bias + 1.5)
    assert all(
        torch.equal(after.unet.state_dict()[key], value) for key, value in before.unet.state_dict().items()
    )
    for name in ("priors.safetensors", "dicetalk.json"):
        assert (tmp_path / "imported" / name).read_bytes() == (model / name).read_bytes()


def test_import_writes_nothing_when_a_tensor_is_missing(model: Path, tmp_path: Path) -> None:
    export_model(model, tmp_path / "official")
    state = torch.load(tmp_path / "official/pose_guider.pth", weights_only=True)
    del state["conv_out.bias"]
    torch.save(state, tmp_path / "official/pose_guider.pth")
    with pytest.raises(DicetalkError, match=r"conv_out\.bias"):
        import_model(tmp_path / "official", model, tmp_path / "imported")
    assert not (tmp_path / "imported").exists()


def test_import_never_replaces_a_folder(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "mine")
    with pytest.raises(DicetalkError, match="exists"):
        import_model(tmp_path, model, tmp_path / "mine")


def test_export_of_something_else_says_how_to_get_a_model(tmp_path: Path) -> None:
    with pytest.raises(DicetalkError, match="dvc repro train_diffusion"):
        export_model(tmp_path, tmp_path / "out")


def test_a_model_loads_in_a_process_that_has_imported_nothing_else(model: Path) -> None:
    code = f"from dicetalk.generation import load_model; load_model({str(model)!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
