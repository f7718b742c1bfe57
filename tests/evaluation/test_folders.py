"""Folders of other systems' videos under the protocol `open`, with what such folders hold in real life."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toy_clips import toy_clip
from typer.testing import CliRunner

from dicetalk import weights
from dicetalk.cli.app import app
from dicetalk.config import Evaluate, load_params
from dicetalk.data.media import write_video
from dicetalk.errors import DicetalkError
from dicetalk.evaluation import measure, readers
from dicetalk.evaluation.evaluate import evaluate_any, evaluate_folders
from dicetalk.evaluation.faces import Video
from dicetalk.evaluation.folders import find_videos, read_labels
from dicetalk.evaluation.landmarks import LandmarkReader
from dicetalk.evaluation.protocol import load_protocol

NAMES = [
    f"M{person:03d}_{emotion}_3_{take:03d}"
    for person in (3, 9)
    for emotion in ("hap", "ang")
    for take in (1, 2)
]
EMOTIONS = {"hap": "happy", "ang": "angry"}


class DrawnFace(LandmarkReader):
    """Finds the face of `toy_clip` without networks: a fixed oval whose mouth opens with the dark column."""

    def __init__(self) -> None:
        angles = np.linspace(0, 2 * np.pi, 468, endpoint=False)
        self.oval = np.stack([0.5 + 0.3 * np.cos(angles), 0.55 + 0.38 * np.sin(angles)], axis=1)
        for vertex, place in {33: (0.3, 0.4), 133: (0.42, 0.4), 263: (0.7, 0.4), 362: (0.58, 0.4)}.items():
            self.oval[vertex] = place

    def mesh(self, frames: np.ndarray) -> np.ndarray:
        height, width = frames.shape[1:3]
        points = np.repeat(self.oval[None], len(frames), axis=0).astype(np.float32) * [width, height]
        points[:, 17, 1] += (frames[:, :, width // 2, 0] < 20).mean(axis=1) * height
        points[frames.mean(axis=(1, 2, 3)) < 5] = np.nan  # a black picture has no face
        return points


@pytest.fixture(scope="module")
def world(tmp_path_factory, repository):
    """Tiny networks in the roles of `open`, eight real clips and a system that copied them with noise."""
    folder = tmp_path_factory.mktemp("folders")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "LandmarkReader", DrawnFace)
        patch.setattr(weights, "resolve", lambda name: folder / name)
        patch.setattr("dicetalk.evaluation.published.load.load_published", tiny_network)
        settings = load_params(repository / "profiles/demo.yaml").evaluate
        write_world(folder)
        yield folder, settings.model_copy(update={"protocol": "open", "bootstrap_samples": 50})


class TinyNetwork(nn.Module):
    """Stands in for both face networks: what it sees is the brightness of a coarse grid."""

    def __init__(self) -> None:
        super().__init__()
        weights = torch.randn(12, 7, generator=torch.Generator().manual_seed(0))
        self.fc = nn.ParameterDict({"weights": weights, "bias": torch.zeros(7)})

    def features(self, faces: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(faces, 2).flatten(1)

    def forward(self, first: torch.Tensor, second: torch.Tensor | None = None) -> torch.Tensor:
        return self.features(first) if second is None else (first - second).abs().mean()


def tiny_network(name: str) -> tuple[nn.Module, str]:
    """Return it with the digest that the protocol asks for."""
    items = load_protocol("open").definition.readers.values()
    digest = next(item.sha256 for item in items if item.network == name)
    assert digest is not None
    return TinyNetwork().requires_grad_(False), digest


def write_world(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for system in ("real", "copy"):
        (folder / system).mkdir()
    for name in NAMES:
        person, emotion, _, take = name.split("_")
        clip = toy_clip(int(person[1:]), EMOTIONS[emotion], int(take), num_frames=20)
        write_video(folder / "real" / f"{name}.mp4", clip.frames, 25.0, clip.audio, 16000)
        noisy = np.clip(clip.frames.astype(int) + rng.integers(-20, 20, clip.frames.shape), 0, 255)
        write_video(folder / "copy" / f"{name}.mp4", noisy.astype(np.uint8), 25.0, clip.audio, 16000)


def run(folder: Path, settings: Evaluate, work: Path, system: str = "copy", threads: int = 2):
    return evaluate_folders(
        {"ours": folder / system}, folder / "real", folder / "none", settings, threads, work
    )


@pytest.fixture
def copy(world, tmp_path):
    """A world of its own for a test that breaks it."""
    shutil.copytree(world[0], tmp_path / "world")
    return tmp_path / "world", world[1]


@pytest.fixture(autouse=True)
def _facemesh_digest(monkeypatch, repository):
    digest = load_protocol("open").definition.readers["landmarks"].sha256
    monkeypatch.setattr(readers, "sha256_file", lambda path: digest)


def test_labels_come_from_names_and_every_metric_is_there(world, tmp_path):
    report = run(*world, tmp_path / "work").report
    ours = report["systems"]["ours"]
    assert set(ours) | {name.removeprefix("ours.") for name in report["skipped"]} >= set(report["networks"])
    assert ours["emotion_accuracy_7"]["n"] == 8
    assert ours["psnr"]["value"] > 15 and 0 < ours["ssim"]["value"] < 1
    assert 0 < ours["lpips"]["value"] < 0.2 and report["networks"]["lpips"]["name"] == "alexnet"
    assert "psnr" not in report["systems"]["real"]  # compared with itself
    assert report["skipped"]["sync_c"] and report["skipped"]["fid"]
    assert report["skipped"]["ours.emo_score"] == "no clip shows neutral, surprised"
    assert report["networks"]["f_sim"]["name"] == "face-api-identity"
    assert report["failures"] == [] and report["notes"] == []
    assert report["protocol"]["name"] == "open"


def test_order_workers_and_interruption_change_no_bit(copy, tmp_path):
    folder, settings = copy
    whole = run(folder, settings, tmp_path / "a", threads=1)
    interrupted = tmp_path / "b"
    shutil.copytree(tmp_path / "a", interrupted)
    kept = sorted(interrupted.iterdir())
    for path in kept[::2]:
        path.unlink()
    kept[1].write_bytes(kept[1].read_bytes()[:100])  # half written
    real = folder / "real"
    for path in sorted(real.iterdir(), reverse=True):  # other order on disk
        path.rename(folder / path.name)
    for path in sorted(folder.glob("*.mp4"), reverse=True):
        path.rename(real / path.name)
    again = run(folder, settings, interrupted, threads=3)
    assert again.report == whole.report
    pd.testing.assert_frame_equal(again.per_clip, whole.per_clip)


def test_a_finished_evaluation_measures_nothing_again(copy, tmp_path, monkeypatch):
    folder, settings = copy
    first = run(folder, settings, tmp_path / "work")
    monkeypatch.setattr(measure.Measurer, "see", None)
    assert run(folder, settings, tmp_path / "work").report == first.report


def test_every_odd_file_has_a_reason_and_the_rest_counts(copy, tmp_path):
    folder, settings = copy
    copies = folder / "copy"
    broken, short, silent, black, odd, slow, missing, good = sorted(path.stem for path in copies.iterdir())
    (copies / f"{broken}.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(500))
    clip = toy_clip(5, "sad", num_frames=20)
    write_video(copies / f"{short}.mp4", clip.frames[:3], 25.0, clip.audio[:1920], 16000)
    write_video(copies / f"{silent}.mp4", clip.frames, 25.0)
    write_video(copies / f"{black}.mp4", np.zeros_like(clip.frames), 25.0, clip.audio, 16000)
    wide = np.repeat(clip.frames, 2, axis=2)
    write_video(copies / f"{odd}.mp4", wide, 25.0, clip.audio, 16000)
    write_video(copies / f"{slow}.mp4", clip.frames[::2], 12.5, clip.audio, 16000)
    (copies / f"{missing}.mp4").unlink()
    (copies / "stranger.mp4").write_bytes(b"")
    report = run(folder, settings, tmp_path / "work").report
    reasons = {(item["system"], item["clip_id"]): item for item in report["failures"]}
    assert "cannot be read" in reasons["ours", broken]["reason"]
    assert "3 frames" in reasons["ours", short]["reason"]
    assert "face was found in 0 of 20" in reasons["ours", black]["reason"]
    assert "psnr" not in reasons["ours", black]["metric"] and "f_sim" in reasons["ours", black]["metric"]
    assert "no counterpart" in reasons["real", missing]["reason"]
    assert "no counterpart" in reasons["ours", "stranger"]["reason"]
    assert set(reasons) == {("ours", n) for n in (broken, short, black, "stranger")} | {("real", missing)}
    notes = {(note["system"], note["clip_id"]): note["note"] for note in report["notes"]}
    assert notes == {
        ("ours", odd): "128 x 64 px, its real video 64 x 64 px",
        ("ours", slow): "12.500 fps, read at 25 fps",
    }
    ours = report["systems"]["ours"]
    assert ours["f_sim"]["n"] == 4  # silent, odd, slow and good
    assert ours["psnr"]["n"] == 5
    assert good not in {clip for _, clip in reasons}


class Listener(readers.Reader):
    """A sync network that hears anything."""

    def see(self, video: Video) -> readers.Parts:
        return {"lips": np.ones((4, 2))}

    def hear(self, samples: np.ndarray, num_frames: int) -> readers.Parts:
        return {"heard": np.full((4, 2), samples[0])}


def test_a_video_without_sound_lacks_sync_only(world):
    definition = load_protocol("open").definition
    measurer = measure.Measurer(definition, {"sync": Listener("listener", "")})
    clip = toy_clip(3, "happy", num_frames=20)
    parts, problems = measurer.measure(clip)
    assert set(parts) == {"lips", "heard"} and not problems
    parts, problems = measurer.measure(replace(clip, audio=clip.audio[:0]))
    assert set(parts) == {"lips"} and problems == {"sync": "there is no sound"}


def test_two_systems_are_compared_on_their_common_clips(copy, tmp_path):
    folder, settings = copy
    shutil.copytree(folder / "copy", folder / "worse")
    (folder / "worse" / f"{NAMES[0]}.mp4").unlink()
    for name in NAMES[1:]:
        clip = toy_clip(7, "sad", num_frames=20)
        write_video(folder / "worse" / f"{name}.mp4", clip.frames, 25.0, clip.audio, 16000)
    given = [str(folder / "copy"), f"other={folder / 'worse'}"]
    report = evaluate_any(given, folder / "real", folder / "none", settings, 2, tmp_path / "work").report
    assert list(report["systems"])[:3] == ["real", "ours", "other"]
    test = report["paired"]["other - ours"]["psnr"]
    assert test["n"] == 7 and test["difference"] < 0 and test["ci95"][1] < 0
    assert test["p"] == pytest.approx(2 / 50, abs=0.03)
    assert test["p_holm"] >= test["p"]


def test_names_that_are_taken_or_missing(copy, tmp_path):
    folder, settings = copy
    with pytest.raises(DicetalkError, match="real is taken"):
        evaluate_any([f"real={folder / 'copy'}"], folder / "real", folder, settings, 1)
    with pytest.raises(DicetalkError, match="is no folder"):
        evaluate_any(["nowhere"], folder / "real", folder, settings, 1)
    shutil.copy(folder / "real" / f"{NAMES[0]}.mp4", folder / "real" / f"{NAMES[0]}.avi")
    with pytest.raises(DicetalkError, match="same name"):
        find_videos(folder / "real")


def test_labels_of_clips_csv_count_before_names(tmp_path):
    videos = {name: tmp_path / f"{name}.mp4" for name in ("M003_hap_3_001", "M003#sad#level_2#004", "take1")}
    assert read_labels(tmp_path, videos) == {
        "M003_hap_3_001": ("M003", "happy", 3),
        "M003#sad#level_2#004": ("M003", "sad", 2),
        "take1": ("", None, 0),
    }
    (tmp_path / "clips.csv").write_text(
        "file,identity,emotion,level\ntake1.mov,anna,fear,2\nother.mp4,bob,sad,1\n"
    )
    assert read_labels(tmp_path, videos)["take1"] == ("anna", "fear", 2)
    (tmp_path / "clips.csv").write_text("file,emotion\ntake1.mov,joy\n")
    with pytest.raises(DicetalkError, match="joy"):
        read_labels(tmp_path, videos)


def test_the_command_prints_protocol_numbers_and_what_is_missing(copy, tmp_path, repository):
    folder, _ = copy
    (folder / "copy" / f"{NAMES[0]}.mp4").write_bytes(b"")
    arguments = ["evaluate", "--generated", folder / "copy", "--real", folder / "real", "--protocol", "open"]
    arguments += ["--params", repository / "params.yaml", "--out", tmp_path / "report.json"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "protocol open" in result.output and "face-api-identity" in result.output
    assert f"not measured: ours {NAMES[0]} (all)" in result.output.replace("\n", " ")
    assert (tmp_path / "report.json").is_file()
