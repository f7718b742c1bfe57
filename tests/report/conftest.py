"""A finished run in miniature: every file the report reads, with made-up numbers and videos of noise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dicetalk.config import Params, load_params
from dicetalk.data.mp4 import write_video
from dicetalk.data.shards import AUDIO, LANDMARKS, VIDEO, Sample, encode_audio, shard_name, write_shard
from dicetalk.files import write_json
from dicetalk.labels import CLASSES, EMOTIONS

NUM_FRAMES = 6
Draw = Callable[[str, str, int, int], np.ndarray]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The folder of the run, made once."""
    root = tmp_path_factory.mktemp("run")
    make_run(root, repository, ["M001", "W002"], draw_noise, NUM_FRAMES)
    return root


@pytest.fixture
def finished_run(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The parameters of the run, whose folder is the working directory."""
    monkeypatch.chdir(run_folder)
    return load_params()


def draw_noise(identity: str, emotion: str, level: int, num_frames: int) -> np.ndarray:
    """Return frames that differ between clips."""
    rng = np.random.default_rng([sum(identity.encode()), EMOTIONS.index(emotion), level])
    return rng.integers(0, 256, (num_frames, 32, 32, 3), np.uint8)


def make_run(root: Path, repository: Path, identities: list[str], draw: Draw, num_frames: int) -> None:
    """Write a run into `root`."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(repository / name, root / name)
    for number, name in enumerate(("mead", "hdtf")):
        _write_processed(root, name, identities if name == "mead" else ["RD_1", "RD_2"], draw, num_frames)
        write_json(root / f"metrics/index-{name}.json", {"clips": 46 - number, "train_clips": 20})
    _write_generated(root / "outputs/generated", identities, draw, num_frames)
    _write_metrics(root / "metrics")
    _write_curves(root / "models")
    _write_per_clip(root / "outputs/evaluation/per_clip.parquet")
    costs = {"preprocess@mead": 61.0, "preprocess@hdtf": 20.0, "train_diffusion": 512.4, "generate": 16.0}
    for stage, seconds in costs.items():
        write_json(root / f"runs/costs/{stage}.json", {"seconds": seconds, "peak_memory_gib": 1.5})


def _write_processed(root: Path, name: str, identities: list[str], draw: Draw, num_frames: int) -> None:
    samples = []
    for identity in identities:
        for emotion, level in CLASSES if name == "mead" else [(None, 0)]:
            frames = draw(identity, emotion or "neutral", level, num_frames + 2)
            path = root / "clip.mp4"
            write_video(path, frames, 25.0)
            members = {
                VIDEO: path.read_bytes(),
                AUDIO: encode_audio(np.zeros(640 * len(frames), np.float32), 16000),
                LANDMARKS: b"",
            }
            path.unlink()
            meta = {"dataset": name, "identity": identity, "emotion": emotion, "level": level}
            meta |= {"split": "test", "num_frames": len(frames), "fps": 25.0, "sample_rate_hz": 16000}
            clip_id = f"{identity}_{emotion}_{level}"
            samples.append(Sample(clip_id, {"clip_id": clip_id, **meta}, members))
    folder = root / "data/processed" / name
    folder.mkdir(parents=True)
    write_shard(folder / shard_name(0), iter(samples))
    kept = pd.DataFrame([{**sample.meta, "shard": shard_name(0)} for sample in samples])
    train = kept.assign(split="train", identity="M900", clip_id="t_" + kept["clip_id"], shard=shard_name(1))
    pd.concat([kept, train]).to_parquet(folder / "kept.parquet", index=False)
    rows = [("M900_angry_9", "no_face", "no face in 40 of 40 frames"), ("M900_sad_8", "silent", "-inf <dB>")]
    pd.DataFrame(rows, columns=["clip_id", "reason", "detail"]).to_csv(folder / "rejected.csv", index=False)
    counts = {"indexed": 2 * len(samples) + 2, "kept": 2 * len(samples), "rejected": 2, "kept_seconds": 123.4}
    reasons = {"no_face": 1, "silent": 1}
    write_json(root / f"metrics/preprocess-{name}.json", {**counts, "reasons": reasons})


def _write_generated(folder: Path, identities: list[str], draw: Draw, num_frames: int) -> None:
    rows = []
    for system, mode in (("ours", "P"), ("ours_v", "V")):
        for identity in identities:
            for emotion, level in CLASSES:
                if system == "ours_v" and level != 1:
                    continue
                clip_id = f"{identity}_{emotion}_{level}"
                frames = draw(identity, emotion, level, num_frames)
                sound = np.zeros(640 * num_frames, np.float32)
                write_video(folder / system / f"{clip_id}.mp4", frames, 25.0, sound, 16000)
                rows.append(
                    {
                        "system": system,
                        "clip_id": clip_id,
                        "video_path": f"{system}/{clip_id}.mp4",
                        "identity": identity,
                        "emotion": emotion,
                        "level": level,
                        "mode": mode,
                        "reference_clip": f"{identity}_neutral_1",
                        "reference_frame": 0,
                        "num_frames": num_frames,
                        "fps": 25.0,
                    }
                )
    pd.DataFrame(rows).to_parquet(folder / "manifest.parquet", index=False)


def _write_metrics(folder: Path) -> None:
    rng = np.random.default_rng(3)
    values = {
        "emotion_accuracy": {
            "real": 0.98,
            "ours": 0.71,
            "ours_v": 0.66,
            "wrong_emotion": 0.03,
            "still": 0.14,
        },
        "emo_score": {"real": 0.95, "ours": 0.68, "ours_v": 0.62, "wrong_emotion": 0.08, "still": 0.2},
        "sync_c": {
            "real": 5.6,
            "ours": 3.4,
            "ours_v": 3.3,
            "wrong_emotion": 3.2,
            "wrong_audio": 1.1,
            "still": 0.4,
        },
        "sync_d": {
            "real": 6.1,
            "ours": 8.4,
            "ours_v": 8.5,
            "wrong_emotion": 8.5,
            "wrong_audio": 11.2,
            "still": 12.0,
        },
        "lmd": {"ours": 1.21, "ours_v": 1.3, "wrong_emotion": 1.9, "still": 2.4},
        "f_sim": {
            "real": 0.99,
            "ours": 0.91,
            "ours_v": 0.91,
            "wrong_emotion": 0.9,
            "wrong_audio": 0.91,
            "still": 1.0,
        },
        "fd_image": {"real": 2.1, "ours": 31.4, "ours_v": 33.0, "wrong_emotion": 32.2, "still": 88.1},
    }
    systems: dict[str, dict] = {}
    for metric, by_system in values.items():
        for system, value in by_system.items():
            width = abs(value) * 0.08 + 0.01
            entry = {"value": value, "ci95": [value - width, value + width], "n": 132}
            systems.setdefault(system, {})[metric] = entry
    network = {"name": "in-domain emotion network", "sha256": "ab" * 32}
    write_json(
        folder / "evaluate.json",
        {
            "protocol": {"name": "demo", "sha256": "cd" * 32, "split": "test", "num_frames": 32},
            "networks": dict.fromkeys(values, network),
            "systems": systems,
            "skipped": {"fid": "needs the published Inception weights"},
            "paired": {
                "ours_v - ours": {
                    "emotion_accuracy": {
                        "difference": -0.0625,
                        "ci95": [-0.125, 0.03],
                        "n": 44,
                        "p": 0.2,
                        "p_holm": 0.4,
                    }
                }
            },
            "expression_strength_differences": {
                "ours": {"level 2 - level 1": {"difference": 0.42, "ci95": [0.31, 0.55], "n": 42, "p": 0.001}}
            },
        },
    )
    cosine = np.clip(np.eye(8) + rng.normal(0, 0.35, (8, 8)), -1, 1)
    cosine = (cosine + cosine.T) / 2
    np.fill_diagonal(cosine, 1.0)
    correlation = {"emotions": list(EMOTIONS), "cosine": cosine.tolist(), "cosine_centred": cosine.tolist()}
    write_json(folder / "priors.json", {**correlation, "norm": [8.0] * 8})
    write_json(
        folder / "train_diffusion.json", {"training": {"loss": 0.2}, "discrimination": discrimination()}
    )
    usage = {"codes_used": 41, "code_perplexity": 27.31}
    bank = {"training": {"loss": 0.5}, "training_identities": usage, "emotion_correlation": correlation}
    write_json(folder / "learn_bank.json", bank)
    modalities = {"audio": 0.52, "video": 0.94, "both": 0.96, "features": 0.91, "chance": 0.14}
    strength = {emotion: 1.5 for emotion in EMOTIONS}
    accuracies = {
        "emotion_accuracy": modalities,
        "class_accuracy": modalities,
        "identity_accuracy": {"mu": 0.11, "features": 0.93, "chance": 0.06},
        "held_out_identity_accuracy": {"mu": 0.41, "features": 0.97, "chance": 0.17},
    }
    write_json(
        folder / "train_embedder.json",
        {
            **accuracies,
            "intervals": {
                key: {
                    name: {"value": value, "ci95": [value - 0.05, value + 0.05], "n": 132}
                    for name, value in by_name.items()
                    if name != "chance"
                }
                for key, by_name in accuracies.items()
            },
            "clustering_strength": {"audio": strength, "video": strength, "both": strength},
        },
    )
    backbone = {
        "weights": "demo-backbone",
        "licence": "Apache-2.0",
        "sha256": {"unet/m.safetensors": "ef" * 32},
    }
    write_json(folder / "backbone.json", backbone)


@pytest.fixture
def measured_discrimination() -> dict:
    """The section of a run's metrics."""
    return discrimination()


def discrimination() -> dict:
    """A discriminator that reads its condition alone."""

    def shares(value: float) -> list[dict]:
        return [{"value": value, "ci95": [max(value - 0.1, 0.0), min(value + 0.1, 1.0)]}] * 2

    accuracy = {"told": shares(1.0), "untold": shares(0.25), "misled": shares(0.0)}
    return {
        "sigmas": [0.1, 10.0],
        "clips": 44,
        "chance": 0.136,
        "emotion_accuracy": accuracy,
        "class_accuracy": accuracy,
        "follows_condition": shares(1.0),
    }


def _write_per_clip(path: Path) -> None:
    rows = [
        {"system": system, "emotion": emotion, "level": level, "emotion_correct": float(level >= hard)}
        for system, hard in (("real", 1), ("ours", 2), ("ours_v", 2), ("still", 4))
        for emotion, level in CLASSES
    ]
    path.parent.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(path, index=False)


def _write_curves(models: Path) -> None:
    for name in ("embedder/curves", "bank/curves", "diffusion/curves", "evaluators/emotion_curves"):
        _write_curve(models / f"{name}.csv")
    for kind in ("emotion_second", "identity", "sync"):
        _write_curve(models / f"evaluators/{kind}_curves.csv")


def _write_curve(path: Path) -> None:
    steps = np.arange(0, 420, 20)
    loss = 2.5 * np.exp(-steps / 120) + 0.3 + 0.05 * np.sin(steps)
    table = pd.DataFrame(
        {"step": steps, "loss": loss, "accuracy": 1 - loss / 3, "lr": 1e-3, "grad_norm": 0.4}
    )
    table["val_loss"] = np.where(steps % 100 == 0, loss + 0.2, np.nan)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
