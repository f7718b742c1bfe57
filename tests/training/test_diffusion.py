"""The objective drops conditions as guidance does, trains what it should, and leaves a usable pipeline."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from safetensors.torch import load_file

from dicetalk.config import ConditionDropout, Params
from dicetalk.data.media import read_video
from dicetalk.labels import CLASSES
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pipeline import DiceTalkPipeline
from dicetalk.release.package import package_model
from dicetalk.tracking.tracker import Tracker
from dicetalk.training import finetune
from dicetalk.training.diffusion import DiffusionObjective, Kept
from dicetalk.training.embeddings import embed_clips
from dicetalk.training.priors import load_priors


@pytest.fixture(scope="module")
def params(repository: Path) -> Params:
    return tiny_models.tiny_params(repository)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def trained(params: Params, project: Path) -> dict:
    return finetune.train_diffusion(params, project, project / "run", Tracker())


@pytest.fixture
def objective(params: Params, project: Path, monkeypatch: pytest.MonkeyPatch) -> DiffusionObjective:
    """The objective as `train_diffusion` builds it."""

    class Built(Exception):
        pass

    def stop(objective: DiffusionObjective, *_: object) -> None:
        raise Built(objective)

    monkeypatch.setattr(finetune, "train", stop)
    with pytest.raises(Built) as caught:
        finetune.train_diffusion(params, project, project / "unused", Tracker())
    return caught.value.args[0]


def test_the_objective_gets_the_priors_and_clips_that_belong_together(
    objective: DiffusionObjective, project: Path
):
    train, test = objective.train_batches, objective.test_batches
    assert set(train.clips.table["split"]) == {"train"} and set(test.clips.table["split"]) == {"test"}
    priors = load_priors(project / "models/priors.safetensors")
    for index, (emotion, level) in enumerate(CLASSES):
        assert np.array_equal(objective.class_priors[index], priors[f"P/{emotion}/{level}"])
    embedder = EmotionEmbedder.from_pretrained(project / "models/embedder")
    for own, batches in ((objective.train_priors, train), (objective.test_priors, test)):
        assert np.allclose(own, embed_clips(embedder, batches.clips), atol=1e-5)
    assert objective.motion.tolist() == [12.5, 8.0, 16.0]  # every second frame of 25 a second
    latents = torch.randn(1, 4, 8, 8)
    assert torch.equal(objective.portrait(latents), latents)  # the patch autoencoder scales by 1


def test_drops_happen_as_often_as_asked():
    torch.manual_seed(0)
    kept = Kept.draw(20_000, ConditionDropout(audio=0.1, image=0.2, emotion=0.3, all=0.05))
    for values, chance in ((kept["audio"], 0.1), (kept["image"], 0.2), (kept["emotion"], 0.3)):
        assert values.float().mean().item() == pytest.approx((1 - chance) * 0.95, abs=0.01)
    nothing = ~kept["audio"] & ~kept["image"] & ~kept["emotion"]
    assert nothing.float().mean().item() == pytest.approx(0.05 + 0.95 * 0.006, abs=0.005)


def test_dropped_conditions_equal_the_null_tokens_of_guidance(objective: DiffusionObjective):
    seen = {}
    objective.network.register_forward_pre_hook(lambda _, __, inputs: seen.update(inputs), with_kwargs=True)
    batch = objective.train_batches.draw(0, 2)
    yes = Kept.everything(2)
    no = Kept({name: ~flags for name, flags in yes.flags.items()})
    objective.predict(batch, torch.randn(2, 16), torch.ones(2), no, batch.latents)
    assert not seen["encoder_hidden_states"].any() and not seen["sample"][:, :, 4:].any()
    null_audio = objective.modules["audio_projection"].null_tokens().expand_as(seen["audio_tokens"])
    null_emotion = objective.emotion_model.null_tokens().expand_as(seen["emotion_tokens"])
    assert torch.allclose(seen["audio_tokens"], null_audio, atol=1e-6)
    assert torch.allclose(seen["emotion_tokens"], null_emotion, atol=1e-6)

    objective.predict(batch, torch.randn(2, 16), torch.ones(2), yes, batch.latents)
    assert torch.equal(seen["sample"][0, 1, 4:], batch.reference_latents[0])
    assert not torch.allclose(seen["audio_tokens"], null_audio, atol=1e-3)


def test_a_perfect_velocity_has_no_error(objective: DiffusionObjective, monkeypatch: pytest.MonkeyPatch):
    batch = objective.train_batches.draw(0, 2)
    sigma = torch.tensor([0.5, 4.0])
    forward = objective.network.forward

    def perfect(sample: torch.Tensor, **inputs: torch.Tensor):
        output = forward(sample=sample, **inputs)
        scale = (sigma**2 + 1).sqrt()[:, None, None, None, None]
        level = sigma[:, None, None, None, None]
        noise = (sample[:, :, :4] * scale - batch.latents) / level
        output.sample = (noise - level * batch.latents) / scale
        return output

    monkeypatch.setattr(objective.network, "forward", perfect)
    noise = torch.randn(batch.latents.shape)
    errors, logits = objective.predict(batch, torch.randn(2, 16), sigma, Kept.everything(2), noise)
    assert errors.max() < 1e-6 and logits.shape == (2, 22)


def test_every_parameter_that_trains_gets_a_gradient(objective: DiffusionObjective):
    groups = objective.parameter_groups(1.0)
    assert [group["lr"] for group in groups] == [1.0, objective.settings.adapter_lr_scale]
    grouped = [id(p) for group in groups for p in group["params"]]
    trainable = {id(p) for m in objective.modules.values() for p in m.parameters() if p.requires_grad}
    assert len(grouped) == len(set(grouped)) and set(grouped) == trainable
    torch.manual_seed(0)
    # The pose guider's output layer starts at zero, which hides the layers below it for one step.
    torch.nn.init.normal_(objective.modules["pose_guider"].conv_out.weight)
    loss, logged = objective.loss(0, 8)
    loss.backward()
    assert {"diffusion", "discrimination", "data_seconds"} <= set(logged)
    for name, module in objective.modules.items():
        missing = [key for key, p in module.named_parameters() if p.requires_grad and p.grad is None]
        assert not missing, f"{name}: {missing}"


def test_a_model_without_a_bank_trains_saves_and_generates(params: Params, project: Path, tmp_path: Path):
    root = tmp_path / "project"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns("run", "diffusion"))
    config = EmotionModel.load_config(root / "models/bank")
    shutil.rmtree(root / "models/bank")
    EmotionModel.from_config(config, use_bank=False).save_pretrained(root / "models/bank")
    finetune.train_diffusion(params, root, tmp_path / "run", Tracker())
    pipeline = DiceTalkPipeline.from_pretrained(root / "models/diffusion")
    assert not pipeline.emotion_model.config.use_bank
    happy, sad = (generate(pipeline, prior) for prior in (torch.zeros(16), torch.ones(16)))
    assert happy.shape == (1, 6, 3, 64, 64) and not torch.equal(happy, sad)


def generate(pipeline: DiceTalkPipeline, prior: torch.Tensor) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        torch.zeros(1, 3, 64, 64),
        torch.zeros(6, 10, 1, 6),
        prior,
        torch.ones(1, 1, 64, 64),
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
    ).frames


def test_a_model_does_not_tell_where_it_was_made(
    params: Params, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / "project"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns("run", "diffusion"))
    monkeypatch.chdir(root)
    finetune.train_diffusion(params, Path(), Path("run"), Tracker())  # as the stage does
    for config in (root / "models/diffusion").rglob("*.json"):
        assert str(tmp_path) not in config.read_text(), config


def test_metrics_of_training(trained: dict):
    assert {"loss_sigma_1", "class_accuracy_sigma_1", "audio_gain_sigma_1", "emotion_gain_sigma_1"} <= set(
        trained["training"]
    )
    assert "seconds_per_step" not in trained["training"]
    assert trained["parameters"]["unet"] > 0


def test_the_packed_folder_is_complete_and_generates(trained: dict, params: Params, project: Path):
    folder = project / "models/dicetalk"
    package_model(params, project / "models", folder)
    for name in ("priors.safetensors", "dicetalk.json", "curves.csv"):
        assert (folder / name).is_file()
    assert EmotionEmbedder.from_pretrained(folder / "embedder").config.embedding_dim == 16
    frames = generate(DiceTalkPipeline.from_pretrained(folder), torch.zeros(16))
    assert frames.shape == (1, 6, 3, 64, 64)


def test_an_interrupted_training_ends_in_the_same_weights(
    trained: dict, project: Path, repository: Path, tmp_path
):
    (tmp_path / "data").symlink_to(project / "data")
    (tmp_path / "models").mkdir()
    for name in ("backbone", "bank", "embedder", "priors.safetensors"):
        (tmp_path / "models" / name).symlink_to(project / "models" / name)
    killed = RuntimeError("killed")

    class Killer(Tracker):
        def log_metrics(self, metrics, step=0):
            raise killed

    # Logging every third step makes the tracker fail after the checkpoint of step 2.
    params = tiny_models.tiny_params(repository, log_every_steps=3)
    with pytest.raises(RuntimeError, match="killed"):
        finetune.train_diffusion(params, tmp_path, tmp_path / "run", Killer())
    finetune.train_diffusion(params, tmp_path, tmp_path / "run", Tracker())
    name = "models/diffusion/unet/diffusion_pytorch_model.safetensors"
    ours, expected = load_file(tmp_path / name), load_file(project / name)
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


def test_the_mouth_weighs_more_and_weights_average_to_one(objective: DiffusionObjective):
    batch = objective.train_batches.draw(0, 3)
    weights = objective._weights(batch.mouth_masks, torch.Size((8, 8)))
    assert weights.shape == (3, 1, 1, 8, 8)
    assert torch.allclose(weights.mean((-2, -1)), torch.ones(3, 1, 1))
    assert weights.flatten(1).max(1).values == pytest.approx(
        weights.flatten(1).min(1).values * objective.settings.mouth_weight, rel=0.3
    )


def test_short_windows_show_more_clips(objective: DiffusionObjective, monkeypatch: pytest.MonkeyPatch):
    shapes = set()
    draw = objective.train_batches.draw

    def record(step: int, batch_size: int, num_frames: int, part: slice):
        batch = draw(step, batch_size, num_frames, part)
        shapes.add(tuple(batch.latents.shape[:2]))
        return batch

    monkeypatch.setattr(objective.train_batches, "draw", record)
    for step in range(12):
        torch.manual_seed(step)
        objective.loss(step, 4)
    assert shapes == {(4, 4), (8, 2)}


def test_samples_show_held_out_people_and_leave_the_training_as_it_is(
    trained: dict, params: Params, project: Path, repository: Path, tmp_path: Path
):
    folder = project / "run/samples/step-000004"
    videos = sorted(folder.iterdir())
    assert len(videos) == params.compute.train_diffusion.sample_clips == 3
    test_identities = {"M004", "M005"}
    assert {path.name.split("-")[0] for path in videos} == test_identities
    emotions = [path.name.split("-")[1] for path in videos]
    assert len(set(emotions)) == 3 and "neutral" not in emotions
    frames = [list(read_video(path, 12.5)) for path in videos]
    assert all(len(video) == 4 and video[0].shape == (64, 64, 3) for video in frames)
    # Without samples the same weights come out.
    (tmp_path / "data").symlink_to(project / "data")
    (tmp_path / "models").mkdir()
    for name in ("backbone", "bank", "embedder", "priors.safetensors"):
        (tmp_path / "models" / name).symlink_to(project / "models" / name)
    params = tiny_models.tiny_params(repository, sample_clips=0)
    finetune.train_diffusion(params, tmp_path, tmp_path / "run", Tracker())
    assert not (tmp_path / "run/samples").exists()
    name = "models/diffusion/unet/diffusion_pytorch_model.safetensors"
    ours, expected = load_file(tmp_path / name), load_file(project / name)
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


def test_discrimination_is_measured_told_untold_and_misled(trained: dict):
    measured = trained["discrimination"]
    assert set(measured["emotion_accuracy"]) == {"told", "untold", "misled"}
    for entries in [*measured["emotion_accuracy"].values(), measured["follows_condition"]]:
        assert len(entries) == len(measured["sigmas"])
        for entry in entries:
            low, high = entry["ci95"]
            assert 0 <= low <= entry["value"] + 1e-9 and entry["value"] - 1e-9 <= high <= 1
    # An answer cannot be both the shown emotion and the other one that was told.
    misled = measured["emotion_accuracy"]["misled"]
    for shown, told in zip(misled, measured["follows_condition"], strict=True):
        assert shown["value"] + told["value"] <= 1 + 1e-9
