"""Shards hold what was put in, in bytes that depend on nothing else."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dicetalk.data.media import write_video
from dicetalk.data.shards import Sample, encode_audio, encode_landmarks, read_samples, shard_name, write_shard
from dicetalk.errors import DicetalkError

FRAMES = [np.full((32, 32, 3), 20 * k, np.uint8) for k in range(6)]


def make_sample(clip_id: str, folder: Path) -> Sample:
    write_video(folder / "clip.mp4", FRAMES, 25, crf=8)
    members = {
        "video.mp4": (folder / "clip.mp4").read_bytes(),
        "audio.wav": encode_audio(np.sin(np.arange(3840) / 10).astype(np.float32), 16000),
        "landmarks.npy": encode_landmarks(np.arange(6 * 68 * 2, dtype=np.float32).reshape(6, 68, 2)),
    }
    meta = {"clip_id": clip_id, "emotion": None, "level": 0, "num_frames": 6, "fps": 25.0, "note": "ä"}
    return Sample(clip_id, meta, members)


def test_round_trip(tmp_path):
    samples = [make_sample(name, tmp_path) for name in ("a-1", "b_2", "c")]
    folder = tmp_path / "set"
    folder.mkdir()
    write_shard(folder / shard_name(0), iter(samples[:2]))
    write_shard(folder / shard_name(1), iter(samples[2:]))
    read = list(read_samples(folder))
    assert [sample.clip_id for sample in read] == ["a-1", "b_2", "c"]
    assert read[1].meta == samples[1].meta
    frames = read[1].frames()
    assert frames.shape == (6, 32, 32, 3) and np.abs(frames.astype(int) - np.stack(FRAMES)).max() <= 2
    assert np.abs(read[1].audio() - np.sin(np.arange(3840) / 10)).max() < 1e-4
    assert read[1].landmarks().dtype == np.float32 and read[1].landmarks()[5, 67, 1] == 6 * 68 * 2 - 1


def test_bytes_depend_on_the_content_alone(tmp_path):
    write_shard(tmp_path / "one.tar", iter([make_sample("a", tmp_path)]))
    write_shard(tmp_path / "two.tar", iter([make_sample("a", tmp_path)]))
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        assert [entry.name for entry in archive] == [
            "a.audio.wav",
            "a.json",
            "a.landmarks.npy",
            "a.video.mp4",
        ]


def test_webdataset_reads_and_would_write_the_same(tmp_path):
    """The layout is webdataset's; only its start-up time, which it shares with torch, is not wanted here."""
    webdataset = pytest.importorskip("webdataset")
    samples = [make_sample(name, tmp_path) for name in ("a-1", "b_2")]
    write_shard(tmp_path / "ours.tar", iter(samples))
    read = list(webdataset.WebDataset(str(tmp_path / "ours.tar"), shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in read] == ["a-1", "b_2"]
    for sample, original in zip(read, samples, strict=True):
        assert json.loads(sample["json"]) == original.meta
        assert all(sample[kind] == content for kind, content in original.members.items())
    options = {"user": "", "group": "", "mode": 0o644, "mtime": 0, "encoder": False}
    with webdataset.TarWriter(str(tmp_path / "theirs.tar"), **options) as writer:
        for sample in samples:
            meta = json.dumps(sample.meta, ensure_ascii=False, sort_keys=True).encode()
            writer.write({"__key__": sample.clip_id, "json": meta, **sample.members})
    assert (tmp_path / "ours.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()


def test_loud_sound_is_not_wrapped_around():
    assert encode_audio(np.array([1.0, 2.0, -2.0], np.float32), 16000)[-6:] == b"\xff\x7f\xff\x7f\x00\x80"


def test_problems_are_named(tmp_path):
    sample = make_sample("a", tmp_path)
    with pytest.raises(DicetalkError, match="Clip id"):
        write_shard(tmp_path / "x.tar", iter([Sample("a.b", sample.meta, sample.members)]))
    write_shard(tmp_path / "y.tar", iter([Sample("a", sample.meta, {})]))
    with pytest.raises(DicetalkError, match="video.mp4"):
        list(read_samples(tmp_path / "y.tar"))
    with pytest.raises(DicetalkError, match="no shard"):
        list(read_samples(tmp_path / "nowhere"))
    with pytest.raises(DicetalkError, match="non-finite"):
        encode_landmarks(np.full((1, 68, 2), np.nan))
    with pytest.raises(DicetalkError, match="announced"):
        Sample("a", {**sample.meta, "num_frames": 7}, sample.members).frames()
