"""The demo backbone: its recipe starts as recorded, and the shipped weights do what they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from threads import allowed_threads, threads_in_use

from dicetalk.config.recipe import load_pretrain_params
from dicetalk.files import read_json, sha256_file
from dicetalk.models.autoencoder import PatchAutoencoder
from dicetalk.models.backbones.files.components import load_component
from dicetalk.models.phonemes import PhonemeEncoder
from dicetalk.synthetic.pool import render_pool
from dicetalk.training import pretraining
from dicetalk.training.autoencoder import to_images
from dicetalk.training.backbone import SHORT_WINDOW_FRAMES, BackboneObjective
from dicetalk.training.phonemes import PhonemeObjective
from dicetalk.training.pretraining import first_steps
from dicetalk.weights import get

UNSEEN_SEED = 987_654


@pytest.fixture(scope="module")
def recipe(repository: Path) -> Path:
    return repository / "pretrained" / "demo-backbone"


@pytest.fixture(scope="module")
def unseen_clips(recipe: Path) -> np.ndarray:
    clips = load_pretrain_params(recipe / "params.yaml").clips
    return render_pool(clips.model_copy(update={"seed": UNSEEN_SEED, "num_people": 12}), workers=1)


@pytest.mark.slow
def test_the_first_steps_of_the_recipe_reproduce(recipe: Path):
    torch.set_num_threads(1)
    measured = first_steps(load_pretrain_params(recipe / "params.yaml"))
    recorded = read_json(recipe / "weights" / "first_steps.json")
    assert measured.keys() == recorded.keys()
    for part, losses in recorded.items():
        assert measured[part] == pytest.approx(losses, rel=2e-3), part


@pytest.mark.parametrize(
    ("part", "objective"),
    [
        ("speech", "PhonemeObjective"),
        ("autoencoder", "autoencoder_objective"),
        ("unet", "backbone_objective"),
    ],
)
def test_the_recipe_computes_on_one_thread_whatever_is_allowed(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, objective: str
):
    class ReachedError(Exception):
        pass

    def record(*_: object) -> None:
        raise ReachedError(threads_in_use())

    monkeypatch.setattr(pretraining, objective, record)
    np.save(tmp_path / "clips.npy", np.zeros((1, 1, 64, 64, 3), np.uint8))
    PatchAutoencoder().save_pretrained(tmp_path / "vae")
    with allowed_threads(3), pytest.raises(ReachedError) as reached:
        params = load_pretrain_params(recipe / "params.yaml")
        getattr(pretraining, f"run_{part}")(params, tmp_path, tmp_path / "run")
    assert reached.value.args == ({"blas": 1, "torch": 1},)


def test_shipped_files_are_the_registered_ones(recipe: Path):
    for name, sha256 in get("demo-backbone").files.items():
        assert sha256 and sha256_file(recipe / "weights" / name).startswith(sha256), name


def test_weights_are_small_enough_for_the_repository(recipe: Path):
    assert sum(path.stat().st_size for path in (recipe / "weights").rglob("*.safetensors")) < 10e6


@torch.no_grad()
def test_autoencoder_reconstructs_unseen_identities(recipe: Path, unseen_clips: np.ndarray):
    autoencoder = load_component(recipe / "weights", "vae")
    images = to_images(unseen_clips[:, 0])
    error = (autoencoder(images).sample.clamp(-1, 1) - images).square().mean((1, 2, 3))
    assert (10 * torch.log10(4 / error)).mean() > 26.0
    start = PatchAutoencoder()
    start.fit_linear(images)
    linear_error = (start(images).sample.clamp(-1, 1) - images).square().mean((1, 2, 3))
    assert error.mean() < 0.7 * linear_error.mean()  # clearly better than the linear map it started from


@pytest.fixture(scope="module")
def objective(recipe: Path, unseen_clips: np.ndarray) -> BackboneObjective:
    """The shipped parts on people they never saw."""
    params, weights = load_pretrain_params(recipe / "params.yaml"), recipe / "weights"
    settings = params.unet
    return BackboneObjective(
        unseen_clips,
        load_component(weights, "vae"),
        num_takes=params.clips.num_takes,
        num_validation=len(unseen_clips),
        num_frames=settings.num_frames,
        short_window_fraction=settings.short_window_fraction,
        sigma_log_mean=settings.sigma_log_mean,
        sigma_log_std=settings.sigma_log_std,
        seed=0,
        unet=load_component(weights, "unet"),
        image_encoder=load_component(weights, "image_encoder"),
    )


@torch.no_grad()
def test_unet_predicts_the_velocity_of_unseen_identities(objective: BackboneObjective):
    torch.manual_seed(0)
    losses = objective.validate(0)
    assert all(loss < 0.4 for loss in losses.values()), losses  # an untrained UNet is at 1.0


def test_short_windows_show_more_people(objective: BackboneObjective, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objective, "num_validation", 0)
    shapes = []

    def record(clips, start, num_frames, references, reference, sigma):
        assert (start + num_frames <= objective.clips.shape[1]).all()
        assert np.array_equal(references // objective.num_takes, clips // objective.num_takes)
        shapes.append((len(clips), num_frames))
        return torch.zeros(())

    monkeypatch.setattr(objective, "velocity_error", record)
    for step in range(200):
        objective.loss(step, 3)
    short = (3 * objective.num_frames // SHORT_WINDOW_FRAMES, SHORT_WINDOW_FRAMES)
    assert set(shapes) == {(3, objective.num_frames), short}
    assert shapes.count(short) / 200 == pytest.approx(objective.short_window_fraction, abs=0.1)


@torch.no_grad()
def test_speech_encoder_names_the_sounds_of_unseen_utterances(recipe: Path):
    settings = load_pretrain_params(recipe / "params.yaml").speech
    unseen = settings.training.model_copy(update={"seed": UNSEEN_SEED})
    objective = PhonemeObjective(
        settings.model_copy(update={"training": unseen, "num_utterances": 24, "num_validation": 24})
    )
    objective.encoder = PhonemeEncoder.from_pretrained(recipe / "weights/speech_encoder").float().eval()
    accuracy = objective.validate(0)
    assert accuracy["accuracy_spoken"] > 0.9, accuracy  # of all tokens: 0.96 when trained
