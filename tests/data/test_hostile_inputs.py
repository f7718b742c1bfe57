"""300 damaged, odd and hostile inputs through the whole command: a reason each, and nothing else happens."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_clip import drawn_head, rotate, write_av
from fake_face import COMPUTE, SETTINGS, noise

from dicetalk import weights
from dicetalk.data.folder import index_folder
from dicetalk.data.preprocess import preprocess_folder
from dicetalk.data.reasons import REASONS

KEPT = "kept"
NAMES = [
    "two words.mp4", "it's.mp4", 'say "hi".mp4', "new\nline.mp4", "$(touch pwned).mp4", "`touch pwned`.mp4",
    "-y.mp4", "--help.mp4", "; rm -rf x.mp4", "a&b|c>d.mp4", "Ünïcödé-Gesicht.mp4", "顔.mp4", "🙂.mp4",
    "%s%d%n.mp4", "http:evil.mp4", "concat:a|b.mp4", "..mp4", " .mp4", "*.mp4", "clip%03d.mp4", "a,b.mp4",
    "tab\there.mp4", "x" * 240 + ".mp4", "{0}.mp4", "~.mp4", "#.mp4", "a\\b.mp4", "'; DROP TABLE clips.mp4",
    "CON.mp4", "é.mp4",
]  # fmt: skip


@pytest.fixture(scope="module")
def real_networks():
    weights.fetch(["blazeface-short-range", "facemesh"])


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, bytes]:
    """One good clip in every container."""
    folder = tmp_path_factory.mktemp("sources")
    frames, samples = drawn_head()
    times = np.arange(len(frames)) / 25
    for suffix in ("mp4", "mkv", "mov", "ts", "avi"):
        other = {"codec": "mpeg4", "sound_codec": "pcm_s16le"} if suffix == "avi" else {}
        write_av(folder / f"good.{suffix}", frames, times, samples, **other)
    return {path.suffix[1:]: path.read_bytes() for path in folder.iterdir()}


def list_inputs(sources: dict[str, bytes]) -> dict[str, tuple[str | None, Callable[[Path], object]]]:
    """Return by file name the expected outcome, None where the damage decides, and what writes the file."""
    inputs: dict[str, tuple[str | None, Callable[[Path], object]]] = {}
    frames, samples = drawn_head()
    times = np.arange(len(frames)) / 25

    def add(name: str, content: bytes, outcome: str | None) -> None:
        inputs[name] = (outcome, lambda path: path.write_bytes(content))

    def film(name: str, outcome: str, pictures=frames, when=times, sound=samples, turn=0, **options) -> None:
        def write(path: Path) -> None:
            write_av(path, pictures, when, sound, **options)
            if turn:
                rotate(path, turn)

        inputs[name] = (outcome, write)

    for name in NAMES:
        add(name, sources["mp4"], KEPT)
    for number in range(80):  # cut off
        suffix = list(sources)[number % 5]
        content = sources[suffix]
        add(f"cut-{number:03d}.{suffix}", content[: len(content) * (number + 1) // 82], None)
    for number in range(110):  # flipped bits, in the head and in the body
        rng = np.random.default_rng(number)
        suffix = list(sources)[number % 5]
        flipped = np.frombuffer(sources[suffix], np.uint8).copy()
        reach = 600 if number % 3 == 0 else len(flipped)
        where = rng.integers(0, reach, int(rng.integers(1, 200)))
        flipped[where] ^= (1 << rng.integers(0, 8, len(where))).astype(np.uint8)
        add(f"flip-{number:03d}.{suffix}", flipped.tobytes(), None)
    for number in range(12):  # holes and doubled parts
        holed, hole = bytearray(sources["mp4"]), 1000 + 1500 * number
        holed[hole : hole + 900] = bytes(900) if number % 2 else holed[:900]
        add(f"hole-{number}.mp4", bytes(holed), None)
    for suffix in ("mp4", "mkv", "mov", "avi", "webm"):
        add(f"zero.{suffix}", b"", "unreadable")
        add(f"text.{suffix}", b"This is no video.\n" * 100, "unreadable")
        add(f"noise.{suffix}", np.random.default_rng(1).bytes(30_000), "unreadable")
    add("playlist.mp4", b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n", "unreadable")
    add("list.mp4", b"ffconcat version 1.0\nfile '/etc/passwd'\n", "unreadable")
    for number, suffix in enumerate(("mov", "mkv", "avi", "webm", "mpg")):  # a good clip under a wrong name
        add(f"wrong-{number}.{suffix}", sources["mp4"], KEPT)
    add("picture.mp4", cv2.imencode(".png", frames[0])[1].tobytes(), "no_audio")
    add("photo.mp4", cv2.imencode(".jpg", frames[0])[1].tobytes(), "no_audio")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("good.mp4", sources["mp4"])
    add("zip.mp4", buffer.getvalue(), None)  # stored as it is; a reader may find the clip inside
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as stream:
        stream.setparams((1, 2, 16000, 0, "NONE", ""))
        stream.writeframes((samples * 32767).astype("<i2").tobytes())
    add("sound.mp4", buffer.getvalue(), "no_video")
    half = len(frames) // 2
    for number in range(4):
        film(f"mute-{number}.mp4", "no_audio", sound=None)
        film(f"one-{number}.mp4", "too_short", frames[:1], [0.0])
        film(f"quiet-{number}.mkv", "silent", sound=np.zeros_like(samples))
        film(f"empty-{number}.mp4", "no_face", np.full_like(frames, 90))
        three = np.concatenate([frames, frames[:, :, ::-1], frames], axis=2)
        film(f"three-{number}.mp4", "several_faces", three)
        film(f"jump-{number}.mp4", "shot_cut", np.concatenate([frames[:half], 255 - frames[half:] // 2]))
        film(f"long-sound-{number}.mp4", KEPT, sound=noise(9.0))
        film(f"short-sound-{number}.mp4", "too_short", sound=noise(0.05))
    for degrees in (90, 180, 270):  # stored lying, shown upright
        lying = np.rot90(frames, degrees // 90, axes=(1, 2))
        film(f"rotated-{degrees}.mp4", KEPT, lying, turn=degrees)
        tall = np.pad(frames, [(0, 0), (40, 60), (0, 0), (0, 0)], mode="edge")
        film(f"phone-{degrees}.mov", KEPT, np.rot90(tall, degrees // 90, axes=(1, 2)), turn=degrees)
    inputs["8k.mp4"] = (KEPT, write_8k)
    inputs["pipe.mp4"] = ("unreadable", os.mkfifo)
    inputs["broken-link.mp4"] = ("unreadable", lambda path: path.symlink_to("nowhere.mp4"))
    inputs["loop.mp4"] = ("unreadable", lambda path: path.symlink_to(path.name))
    return inputs


def write_8k(path: Path) -> None:
    frames, samples = drawn_head()
    huge = [cv2.resize(frame, (4320, 4320), interpolation=cv2.INTER_LINEAR) for frame in frames[:11]]
    huge = [np.pad(frame, [(0, 0), (1680, 1680), (0, 0)], mode="edge") for frame in huge]
    fast = {"preset": "ultrafast", "crf": "30"}
    write_av(path, huge, np.arange(11) / 25, samples, options=fast)


def outcomes(output: Path, files: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return outcome and detail by file name."""
    import pandas as pd

    kept = pd.read_parquet(output / "kept.parquet")
    found = {files[clip_id]: (KEPT, "") for clip_id in kept["clip_id"]}
    with open(output / "rejected.csv", newline="", encoding="utf-8") as stream:
        for line in csv.DictReader(stream):
            found[files[line["clip_id"]]] = (line["reason"], line["detail"])
    return found


def state(folder: Path) -> dict[str, tuple]:
    return {
        path.name: (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in folder.iterdir()
    }


@pytest.mark.timeout(900)
@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_each_has_its_reason_and_nothing_else_happens(real_networks, sources, tmp_path, monkeypatch, every):
    raw = tmp_path / "raw"
    (raw / "folder.mp4").mkdir(parents=True)
    inputs = list_inputs(sources)
    assert len(inputs) >= 300
    chosen = dict(list(inputs.items())[::every])
    expected = {name: outcome for name, (outcome, _) in chosen.items()}
    for name, (_, write) in chosen.items():
        write(raw / name)
    monkeypatch.chdir(tmp_path)
    before = state(raw)
    settings = SETTINGS.model_copy(update={"clips_per_shard": 50})
    compute = COMPUTE.model_copy(update={"workers": 2, "clip_timeout_seconds": 120.0})
    summary = preprocess_folder(Path("raw"), Path("out"), settings, compute)
    assert state(raw) == before  # inputs untouched
    assert summary["indexed"] == summary["kept"] + summary["rejected"] == len(expected)
    names = {path.name for path in tmp_path.iterdir()}  # nothing else anywhere, nothing half done
    assert names == {"raw", "out", ".out-run-ledger.json"} and not (tmp_path / "pwned").exists()
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]

    table = index_folder(raw)
    files = dict(zip(table["clip_id"], table["video_path"], strict=True))
    found = outcomes(tmp_path / "out", files)
    assert {code for code, _ in found.values()} <= {*REASONS, KEPT}
    unexplained = {name: why for name, why in found.items() if why[0] in ("failed", "crashed")}
    assert not unexplained
    wrong = {name: found[name] for name, code in expected.items() if code and found[name][0] != code}
    assert not wrong
    damaged = [found[name][0] for name in expected if name.startswith(("cut-", "flip-", "hole-"))]
    assert damaged.count("unreadable") >= len(damaged) / 4  # so the damage was real
