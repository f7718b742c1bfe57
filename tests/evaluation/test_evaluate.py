from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toy_clips import toy_clip

from dicetalk import weights
from dicetalk.config import Evaluate, load_params
from dicetalk.data.media import write_video
from dicetalk.data.shards import Sample, encode_audio, encode_landmarks, write_shard
from dicetalk.errors import DicetalkError
from dicetalk.evaluation import measure
from dicetalk.evaluation.evaluate import evaluate_folders, evaluate_generated
from dicetalk.evaluation.gradients import GradientEmotionNet
from dicetalk.evaluation.networks import FrameEmotionNet, IdentityNet
from dicetalk.evaluation.session import Evaluation
from dicetalk.evaluation.store import save_network
from dicetalk.evaluation.syncnet import InDomainSyncNet

NUM_FRAMES = 32
SHOWN = ("happy", "neutral", "angry", "surprised")


class PassiveReader:
    """Stands in for FaceMesh: the mouth is as open as the crop's middle column is dark."""

    def read(self, frames: np.ndarray) -> np.ndarray:
        points = np.full((len(frames), 68, 2), 0.5, dtype=np.float32)
        points[:, 36], points[:, 45] = [0.3, 0.4], [0.7, 0.4]
        points[:, 57, 1] = 0.5 + (frames[:, :, 32, 0] < 20).mean(axis=1)
        return points


@dataclass(frozen=True)
class World:
    folder: Path
    settings: Evaluate

    def evaluate(self, generated: Path | None = None, threads: int = 2) -> Evaluation:
        generated = generated or self.folder / "generated"
        networks = self.folder / "networks"
        with tempfile.TemporaryDirectory() as work:
            return evaluate_generated(
                generated, [self.folder / "processed"], networks, self.settings, threads, Path(work)
            )


@pytest.fixture(scope="module")
def world(tmp_path_factory, repository):
    """Untrained networks, a processed test split of 2 identities x 4 emotions, and generated copies of it."""
    tmp_path = tmp_path_factory.mktemp("world")
    settings = load_params(repository / "profiles/demo.yaml").evaluate
    mesh = tmp_path / "mesh.tflite"
    mesh.write_bytes(b"mesh")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(measure, "LandmarkReader", PassiveReader)
        monkeypatch.setattr(weights, "resolve", lambda name: mesh)
        build(tmp_path)
        yield World(tmp_path, settings.model_copy(update={"bootstrap_samples": 20}))


@pytest.fixture(scope="module")
def evaluation(world):
    return world.evaluate()


@pytest.fixture
def generated(world, tmp_path):
    """A copy of the generated videos that a test may break."""
    shutil.copytree(world.folder / "generated", tmp_path / "generated")
    return tmp_path / "generated"


def build(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for kind, network in (
        ("emotion", FrameEmotionNet()),
        ("emotion_second", GradientEmotionNet()),
        ("identity", IdentityNet(3)),
        ("sync", InDomainSyncNet()),
    ):
        save_network(tmp_path / "networks", kind, network)
    clips = [toy_clip(identity, emotion) for identity in range(2) for emotion in SHOWN]
    (tmp_path / "processed").mkdir()
    (tmp_path / "generated/ours").mkdir(parents=True)
    write_shard(tmp_path / "processed/shard-000000.tar", (sample_of(clip, tmp_path) for clip in clips))
    rows = []
    for clip in clips:
        path = f"ours/{clip.clip_id}.mp4"
        write_video(tmp_path / "generated" / path, clip.frames[:NUM_FRAMES], 25.0, clip.audio, 16000)
        rows.append(
            {
                "system": "ours",
                "clip_id": clip.clip_id,
                "video_path": path,
                "identity": clip.identity,
                "emotion": clip.emotion,
                "level": clip.level,
                "reference_clip": f"{clip.identity}_neutral_1",
                "reference_frame": 0,
            }
        )
    pd.DataFrame(rows).to_parquet(tmp_path / "generated/manifest.parquet")


def sample_of(clip, folder) -> Sample:
    video = folder / "sample.mp4"
    write_video(video, clip.frames, 25.0)
    meta = {
        "identity": clip.identity,
        "emotion": clip.emotion,
        "level": clip.level,
        "split": "test",
        "fps": 25.0,
        "num_frames": len(clip.frames),
    }
    members = {
        "video.mp4": video.read_bytes(),
        "audio.wav": encode_audio(clip.audio, 16000),
        "landmarks.npy": encode_landmarks(PassiveReader().read(clip.frames) * 64),
    }
    return Sample(clip.clip_id, meta, members)


def test_report_keeps_the_contract(evaluation):
    report = evaluation.report
    assert list(report["systems"]) == ["real", "ours", "still", "wrong_audio", "wrong_emotion"]
    metrics = ["emotion_accuracy", "emo_score", "emo_score_neutral", "emo_score_non_neutral"]
    metrics += ["emotion_accuracy_second", "neutral_accuracy", "neutral_accuracy_second"]
    metrics += ["expression_strength_neutral", "f_sim", "fd_image", "fd_video", "sync_c", "sync_d", "lmd"]
    for system, found in report["systems"].items():
        assert list(found) == metrics, system
        for estimate in found.values():
            low, high = estimate["ci95"]
            assert np.isfinite([estimate["value"], low, high]).all() and low <= high
            assert estimate["n"] > 0
    strengths = {f"expression_strength_level_{level}" for level in (1, 2, 3)}
    assert set(report["networks"]) == set(metrics) | strengths
    assert report["networks"]["emotion_accuracy_second"]["name"] == "in-domain-emotion-gradients"
    assert report["networks"]["sync_d"]["name"] == "in-domain-sync"
    assert len(report["networks"]["lmd"]["sha256"]) == 64
    # Four of the eight emotions are shown here, at one level each.
    lacking = {f"{system}.{name}" for system in report["systems"] for name in strengths}
    assert set(report["skipped"]) == {"fid", "fvd"} | lacking
    assert "contempt" in report["skipped"]["ours.expression_strength_level_3"]
    assert set(report["expression_strength_differences"]["ours"]) == {"neutral - real neutral"}
    assert report["protocol"]["num_frames"] == NUM_FRAMES
    assert report["failures"] == []


def test_systems_are_what_they_are_called(evaluation):
    value = {
        system: {metric: estimate["value"] for metric, estimate in metrics.items()}
        for system, metrics in evaluation.report["systems"].items()
    }
    assert value["ours"]["lmd"] < value["still"]["lmd"]
    assert value["ours"]["lmd"] < value["wrong_emotion"]["lmd"]
    assert value["still"]["f_sim"] == pytest.approx(1.0)
    for metric in ("lmd", "f_sim", "fd_image", "emotion_accuracy"):  # only the sound is wrong
        assert value["wrong_audio"][metric] == value["ours"][metric]
    assert value["wrong_audio"]["sync_d"] != value["ours"]["sync_d"]
    table = evaluation.per_clip
    assert table.groupby("system").size().to_dict() == dict.fromkeys(value, 8)


def test_the_number_of_threads_changes_no_bit(world, evaluation):
    alone = world.evaluate(threads=1)
    assert alone.report == evaluation.report
    pd.testing.assert_frame_equal(alone.per_clip, evaluation.per_clip)


def test_a_broken_video_is_listed_and_the_rest_counts(world, generated):
    (generated / "ours/T0_happy_1.mp4").write_bytes(b"not a video")
    (generated / "ours/T1_happy_1.mp4").unlink()
    short = toy_clip(1, "angry", num_frames=10)
    write_video(generated / "ours/T1_angry_1.mp4", short.frames, 25.0, short.audio, 16000)
    report = world.evaluate(generated).report
    failures = {failure["clip_id"]: failure for failure in report["failures"]}
    assert set(failures) == {"T0_happy_1", "T1_happy_1", "T1_angry_1"}
    assert "10 frames" in failures["T1_angry_1"]["reason"]
    assert report["systems"]["ours"]["sync_d"]["n"] == report["systems"]["real"]["sync_d"]["n"] == 5


def test_nothing_to_compare_is_an_error(world, generated):
    for path in (generated / "ours").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DicetalkError, match="Not one video"):
        world.evaluate(generated)


def test_two_folders_are_matched_by_name(world, generated, tmp_path):
    real = tmp_path / "real"
    shutil.copytree(generated / "ours", real)
    for name in ("T0_happy_1", "T1_happy_1"):
        (real / f"{name}.mp4").unlink()
    (real / "stranger.mp4").write_bytes(b"")
    systems, networks = {"ours": generated / "ours"}, world.folder / "networks"
    report = evaluate_folders(systems, real, networks, world.settings, 2, tmp_path / "work").report
    unmatched = {(failure["system"], failure["clip_id"]) for failure in report["failures"]}
    assert unmatched == {("real", "stranger"), ("ours", "T0_happy_1"), ("ours", "T1_happy_1")}
    assert report["systems"]["ours"]["lmd"]["value"] == pytest.approx(0.0)
    assert "emotion_accuracy" not in report["systems"]["ours"]
    assert "no emotion labels" in report["skipped"]["ours.emotion_accuracy"]
    assert "wrong_emotion" in report["skipped"]
