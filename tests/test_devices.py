"""Everything that computes on a GPU keeps its tensors together there; no GPU is needed to see that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from pretended_gpu import pretended_gpu
from torch import nn
from toy_clips import toy_clips

from dicetalk.config import Params, Training, TrainingCompute, load_params
from dicetalk.evaluation.store import load_network
from dicetalk.generation.clip import Request, generate_frames, load_model
from dicetalk.generation.portrait import Portrait
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.models.emotion import EmotionModel
from dicetalk.release.package import package_model
from dicetalk.tracking.tracker import Tracker
from dicetalk.training import bank, discrimination, embedder, evaluators, finetune
from dicetalk.training.checkpoint import append_log
from dicetalk.training.loop import Objective
from dicetalk.training.priors import load_priors


def test_the_pretended_gpu_refuses_what_a_real_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_gpu(monkeypatch) as is_on_gpu:
        layer, x = nn.Linear(3, 2).to("cuda"), torch.ones(4, 3)
        with pytest.raises(RuntimeError, match="one device"):
            layer(x)
        loss = layer(x.to(layer.weight.device)).square().mean()
        loss.backward()
        assert is_on_gpu(loss) and is_on_gpu(layer.weight.grad)
        with pytest.raises(TypeError, match="cpu"):
            layer.weight.detach().numpy()
        assert layer.cpu().weight.detach().numpy().shape == (2, 3)
        assert layer(x).device.type == "cpu"
        with pytest.raises(RuntimeError, match="one device"):
            torch.zeros(3, device="cuda") + torch.zeros(3)
        assert is_on_gpu(torch.zeros(3, device="cuda") + torch.tensor(1.0))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def params(repository: Path) -> Params:
    params = tiny_models.tiny_params(repository)
    sizes = {"embedding_dim": 16, "hidden_dim": 32, "num_layers": 1, "num_heads": 2, "clip_frames": 8}
    return params.model_copy(
        update={
            "train_embedder": params.train_embedder.model_copy(update=sizes),
            "learn_bank": params.learn_bank.model_copy(update={"dim": tiny_models.TOKEN_DIM, "num_codes": 8}),
        }
    )


def one_step(
    objective: Objective,
    settings: Training,
    _compute: TrainingCompute,
    run_dir: Path,
    _tracker: Tracker,
    label: str,
    *rest: Any,
) -> dict[str, float]:
    """Stand in for the training loop, whose own libraries would look for a real GPU."""
    loss, logged = objective.loss(0, settings.batch_size)
    loss.backward()
    for name, module in objective.modules.items():
        for key, parameter in module.named_parameters():
            assert parameter.device.type == "cuda", f"{label}: {name}.{key}"
            assert parameter.grad is None or parameter.grad.device.type == "cuda", f"{label}: {name}.{key}"
        module.eval()
    with torch.no_grad():
        metrics = objective.validate(0)
        if len(rest) > 1 and rest[1] is not None:
            rest[1](run_dir / "samples")
    run_dir.mkdir(parents=True, exist_ok=True)
    append_log(run_dir, 1, logged)
    return {**metrics, "seconds_per_step": 1.0, "data_wait_fraction": 0.0}


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bank, embedder, evaluators, finetune):
        monkeypatch.setattr(module, "train", one_step)


def test_embedder(project: Path, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_gpu(monkeypatch):
        embedder.train_embedder(
            [project / "data/encoded/mead"],
            params.train_embedder,
            params.compute.train_embedder,
            tmp_path / "run",
            tmp_path / "embedder",
            Tracker(),
        )
    assert EmotionEmbedder.from_pretrained(tmp_path / "embedder").config.embedding_dim == 16


@pytest.mark.parametrize("use_bank", [True, False])
def test_bank(
    project: Path, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_bank: bool
) -> None:
    with pretended_gpu(monkeypatch):
        metrics = bank.learn_bank(
            encoded=[project / "data/encoded/mead"],
            embedder=EmotionEmbedder.from_pretrained(project / "models/embedder"),
            priors=load_priors(project / "models/priors.safetensors"),
            prior_source="embedding",
            backbone=project / "models/backbone",
            settings=params.learn_bank.model_copy(update={"use_bank": use_bank}),
            compute=params.compute.learn_bank,
            run_dir=tmp_path / "run",
            output=tmp_path / "bank",
            tracker=Tracker(),
        )
    assert 0 <= metrics["training"]["class_accuracy_whole_bank"] <= 1
    saved = EmotionModel.from_pretrained(tmp_path / "bank")
    assert saved.config.use_bank == use_bank and all(p.isfinite().all() for p in saved.parameters())


def test_evaluators(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = toy_clips()
    monkeypatch.setattr(evaluators, "load_processed", lambda *_: clips[:16])
    params = load_params(repository / "profiles/smoke.yaml")
    out, runs = tmp_path / "evaluators", tmp_path / "runs"
    with pretended_gpu(monkeypatch):
        results = evaluators.train_evaluators(params.evaluators, params.compute.evaluators, [], out, runs)
    assert set(results) == set(evaluators.OBJECTIVES)
    for kind, result in results.items():
        assert load_network(tmp_path / "evaluators", kind).sha256 == result["sha256"]


def test_diffusion_training_and_generation(
    project: Path, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discrimination, "SIGMAS", (1.0,))
    monkeypatch.setattr(discrimination, "MAX_CLIPS", 4)
    settings = params.generate.model_copy(update={"num_inference_steps": 1, "interpolation": "linear"})
    portrait = Portrait(np.full((64, 64, 3), 40, np.uint8), (8, 8, 48, 48))
    with pretended_gpu(monkeypatch):
        finetune.train_diffusion(params, project, tmp_path / "run", Tracker())
        package_model(params, project / "models", project / "models/dicetalk")
        model = load_model(project / "models/dicetalk")
        assert model.pipeline.unet.device.type == "cuda"
        prior = model.embed(torch.zeros(16, 1, 6), torch.zeros(8, 136))
        [frames] = generate_frames(
            model, [Request(portrait, np.zeros((24, 1, 6)), prior, 6, seed=1)], settings
        )
    assert frames.shape[1:] == (64, 64, 3)
