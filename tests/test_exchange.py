"""Model folders to the official files and back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from dicetalk.cli.app import app
from dicetalk.config import Generate
from dicetalk.errors import DicetalkError
from dicetalk.generation.clip import generate_one, load_model
from dicetalk.labels import EMOTIONS
from dicetalk.models.pipeline import DiceTalkPipeline
from dicetalk.release.exchange import export_model, import_model, import_release
from dicetalk.release.package import package_model
from dicetalk.tracking.tracker import Tracker
from dicetalk.training.finetune import train_diffusion


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    root = tiny_models.write_project(tmp_path_factory.mktemp("project"))
    params = tiny_models.tiny_params(repository, num_steps=1)
    train_diffusion(params, root, root / "run", Tracker())
    package_model(params, root / "models", root / "models/dicetalk")
    return root / "models/dicetalk"


def test_import_reads_what_export_wrote_and_keeps_the_rest(model: Path, tmp_path: Path) -> None:
    files = export_model(model, tmp_path / "official")
    networks = ["audio_linear.pth", "emo_model.pth", "pose_guider.pth", "unet.pth"]
    assert sorted(path.name for path in files) == sorted(networks + [f"{name}.npy" for name in EMOTIONS])
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


def test_import_from_backbone_and_release_alone_generates(
    model: Path, tmp_path: Path, repository: Path, shared_dir: Path
) -> None:
    """No trained model is needed: SVD's directory, the official files and their priors are enough."""
    official, backbone, out = tmp_path / "official", model.parent / "backbone", tmp_path / "released"
    export_model(model, official)
    for network in ("vae", "image_encoder", "unet"):  # as Stable Video Diffusion is published
        for path in (backbone / network).glob("*.safetensors"):
            half = {name: value.half() for name, value in load_file(path).items()}
            save_file(half, path.with_suffix(".fp16.safetensors"))
    params = tiny_models.tiny_params(repository)
    bank = params.learn_bank.model_copy(update={"dim": 32, "num_codes": 8, "num_tokens": 2, "num_heads": 2})
    speech = params.encode.speech.model_copy(update={"num_mels": 6})
    update = {
        "learn_bank": bank.model_copy(update={"dim": tiny_models.TOKEN_DIM}),
        "train_embedder": params.train_embedder.model_copy(update={"embedding_dim": 16}),
        "encode": params.encode.model_copy(update={"speech": speech}),
    }
    import_release(official, backbone, out, params.model_copy(update=update), priors=official)

    before, after = load_model(model), load_model(out)
    for name in ("unet", "audio_projection", "emotion_model", "pose_guider"):
        expected = getattr(before.pipeline, name).state_dict()
        found = getattr(after.pipeline, name).state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert after.pipeline.config.size_multiple == before.pipeline.config.size_multiple
    assert after.pipeline.vae.dtype == torch.float32
    for level in (1, 2, 3):
        assert (after.class_prior("happy", level) == before.priors["P/happy"]).all()
    with pytest.raises(DicetalkError, match="no emotion embedder"):
        after.embed(None, torch.zeros(4, 136))
    media = shared_dir / "media"
    generate_one(
        after,
        media / "scikit-image__astronaut.png",
        media / "Audio2Face-3D-Samples__Claire_neutral.wav",
        tmp_path / "out.mp4",
        Generate(**{**after.settings["generate"], "num_inference_steps": 1}),
        threads=1,
        emotion="happy",
        level=2,
    )
    assert (tmp_path / "out.mp4").stat().st_size > 1000


def test_import_without_priors_says_so_when_one_is_needed(model: Path, tmp_path: Path) -> None:
    export_model(model, tmp_path / "official")
    shutil.copytree(model, tmp_path / "bare", ignore=shutil.ignore_patterns("priors.safetensors"))
    bare = load_model(tmp_path / "bare")
    with pytest.raises(DicetalkError, match="--priors"):
        bare.class_prior("happy", 1)
    import_model(tmp_path / "official", tmp_path / "bare", tmp_path / "full", priors=tmp_path / "official")
    assert set(load_model(tmp_path / "full").priors) == {f"P/{emotion}" for emotion in EMOTIONS}


def test_the_commands_go_there_and_back(model: Path, tmp_path: Path) -> None:
    official, imported, again = (tmp_path / name for name in ("official", "imported", "again"))
    for command in (
        ["export", "--model", model, "--out", official],
        ["import", official, "--model", model, "--priors", official, "--out", imported],
        ["export", "--model", imported, "--out", again],
    ):
        result = CliRunner().invoke(app, ["weights", *map(str, command)])
        assert result.exit_code == 0, result.output
    for path in official.glob("*.pth"):
        first, second = (torch.load(folder / path.name, weights_only=True) for folder in (official, again))
        assert all(torch.equal(second[key], value) for key, value in first.items())
    for path in official.glob("*.npy"):
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_import_never_replaces_a_folder(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "mine")
    with pytest.raises(DicetalkError, match="exists"):
        import_model(tmp_path, model, tmp_path / "mine")


def test_export_of_something_else_says_how_to_get_a_model(tmp_path: Path) -> None:
    with pytest.raises(DicetalkError, match="dvc repro train_diffusion"):
        export_model(tmp_path, tmp_path / "out")


def test_a_model_loads_in_a_process_that_has_imported_nothing_else(model: Path) -> None:
    code = (
        f"from dicetalk.generation.clip import load_model; print(type(load_model({str(model)!r})).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "TalkingModel\n"
