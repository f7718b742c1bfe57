"""Building a study: nothing tells a system, nothing is overwritten, the same inputs give the same study."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from toy_study import SYSTEMS, Study, build, write_systems
from typer.testing import CliRunner

from dicetalk.cli.app import app
from dicetalk.data.media import probe, read_audio, read_video
from dicetalk.data.mp4 import write_video
from dicetalk.errors import DicetalkError
from dicetalk.study.build import Plan, build_study
from dicetalk.study.design import Size
from dicetalk.study.key import CheckTrial, read_key
from dicetalk.study.sources import Clip, choose_clips, find_clips, read_labels


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="study-data">(.*?)</script>', page)[1])


def test_nothing_on_the_page_or_in_the_videos_tells_a_system_or_a_clip(study: Study) -> None:
    files = [path for path in study.page.parent.rglob("*") if path.is_file()]
    assert len(files) == 1 + len(study.key.stimuli)
    for path in files:
        content = path.read_bytes() + path.name.encode()
        for name in (*SYSTEMS, "clip0", "clip1", "clip2", "clip3"):
            assert name.encode() not in content, path
    for path in files:
        if path.suffix == ".mp4":
            with av.open(str(path)) as container:
                names = [(s.codec_context.name, s.codec_context.rate) for s in container.streams.audio]
                assert names == [("aac", 48000)]
                assert container.streams.video[0].codec_context.name == "h264"
                assert container.metadata["comment"].startswith("Part of a blinded study")


def test_names_of_files_do_not_follow_systems(study: Study) -> None:
    order = [stimulus.system for _, stimulus in sorted(study.key.stimuli.items())]
    assert order != sorted(order) and len(set(order)) == 3
    written = sorted(study.page.parent.glob("media/*.mp4"), key=lambda path: path.stat().st_mtime_ns)
    assert [path.name for path in written] == sorted(path.name for path in written)


def test_the_page_loads_nothing_and_its_policy_forbids_it(study: Study) -> None:
    page = study.page.read_text()
    assert not re.findall(r"https?://|//[a-z]|@import|url\(", page.replace("// ", ""))
    assert set(re.findall(r'(?:src|href)="([^"]*)"', page)) == {"data:,"}
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("script", "style"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_the_page_knows_lists_but_no_answers_of_checks(study: Study) -> None:
    data = data_of(study.page.read_text())
    assert data["slots"] == study.key.slots and set(data["trials"]) == set(study.key.trials)
    assert {key for trial in data["trials"].values() for key in trial} == {"kind", "media", "emotion"}
    for name, trial in study.key.trials.items():
        shown = data["trials"][name]
        assert shown["kind"] == (trial.part if isinstance(trial, CheckTrial) else trial.kind)
        assert len(shown["media"]) == (2 if shown["kind"] == "pair" else 1)
        for media in shown["media"]:
            assert (study.page.parent / media).is_file()
    assert data["questions"]["emotion"]["rating"]["happy"].endswith("express happiness?")


def test_videos_are_whole_and_checks_carry_their_message(study: Study) -> None:
    checks = {t.stimulus for t in study.key.trials.values() if isinstance(t, CheckTrial)}
    assert len(checks) == 2
    for token, stimulus in study.key.stimuli.items():
        path = study.page.parent / "media" / f"{token}.mp4"
        info = probe(path)
        assert info.duration_seconds == pytest.approx(stimulus.seconds, abs=0.05)
        assert np.abs(read_audio(path)).max() > 0.1
        frames = np.stack(list(read_video(path)))
        source = np.stack(list(read_video(study.folders[stimulus.system] / f"{stimulus.clip}.mp4")))
        if token in checks:
            assert info.width >= 320
            assert frames[0].max() > 200 and np.median(frames[-1][-40:]) < 60  # the dark bar of the message
            assert (frames[-1][-120:] > 200).mean() > 0.01  # with light letters
        else:
            assert frames.shape == source.shape
            assert np.abs(frames.astype(int) - source).mean() < 4


def test_the_same_inputs_and_seed_give_the_same_bytes(study: Study, tmp_path: Path) -> None:
    again = build(tmp_path, study.folders, Size(6, 6, 3, 2))
    assert again == study.key
    for path in (tmp_path / "study").rglob("*"):
        if path.is_file():
            relative = path.relative_to(tmp_path / "study")
            assert path.read_bytes() == (study.page.parent / relative).read_bytes()


def test_nothing_is_overwritten_and_the_key_stays_out_of_the_page(study: Study, tmp_path: Path) -> None:
    plan = Plan("Faces", 4, Size(1, 2, 0, 0), 0)

    def refused(out: Path, key: Path, message: str) -> None:
        with pytest.raises(DicetalkError, match=message):
            build_study(study.folders, None, plan, out, key)

    refused(study.root / "study", tmp_path / "key.json", "not empty")
    refused(tmp_path / "new", study.key_path, "exists")
    refused(tmp_path / "new", tmp_path / "new/key.json", "raters can see")
    assert not (tmp_path / "new").exists()
    assert read_key(study.key_path) == study.key


def test_a_broken_video_leaves_no_half_of_a_study(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def breaks_at_the_third(source: Path, target: Path, seconds: float, message: list[str] | None) -> None:
        if len(written) == 2:
            raise DicetalkError(f"{source}: cannot be read")
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"video")
        written.append(target)

    monkeypatch.setattr("dicetalk.study.build.write_blinded", breaks_at_the_third)
    with pytest.raises(DicetalkError, match="cannot be read"):
        build(tmp_path, study.folders, Size(1, 6, 0, 0))
    assert len(written) == 2 and not list(tmp_path.iterdir())


def test_unusable_clips_are_named_with_a_reason(tmp_path: Path) -> None:
    folders = write_systems(tmp_path, 6)
    frames = np.zeros((16, 32, 32, 3), np.uint8)
    write_video(folders["alphasys"] / "clip1.mp4", frames, 25)
    (folders["betasys"] / "clip2.mp4").write_bytes(b"no video")
    (folders["gammasys"] / "clip3.mp4").unlink()
    write_video(folders["gammasys"] / "clip4.mp4", frames[:3], 25, np.zeros(1920, np.float32), 16000)
    labels = {f"clip{i}": "happy" for i in range(5)}
    clips, left_out = find_clips(folders, labels)
    assert [clip.name for clip in clips] == ["clip0"]
    assert "no sound" in left_out["clip1"] and "clip1.mp4" in left_out["clip1"]
    assert "cannot be read" in left_out["clip2"]
    assert left_out["clip3"] == "no video of gammasys"
    assert "0.12 s" in left_out["clip4"]
    assert left_out["clip5"] == "no emotion in the labels"


def test_all_systems_of_a_clip_are_cut_to_the_shortest(tmp_path: Path) -> None:
    folders = write_systems(tmp_path, 1, num_frames=16)
    long = write_systems(tmp_path / "long", 1, num_frames=40)
    folders["betasys"] = long["betasys"]
    key = build(tmp_path, folders, Size(1, 3, 0, 0), clips=1)
    for token in key.stimuli:
        assert len(list(read_video(tmp_path / f"study/media/{token}.mp4"))) == 16


def test_clips_are_chosen_evenly_over_emotions() -> None:
    emotions = ["happy"] * 20 + ["sad"] * 3 + ["fear"] * 9
    clips = [Clip(f"c{i}", emotion, {}, 1.0) for i, emotion in enumerate(emotions)]
    chosen = choose_clips(clips, 12, np.random.default_rng(0))
    counts = pd.Series([clip.emotion for clip in chosen]).value_counts().to_dict()
    assert sorted(counts.values()) == [3, 4, 5] and counts["sad"] == 3
    assert len(choose_clips(clips, 99, np.random.default_rng(0))) == 32


def test_labels_come_from_a_csv_or_a_manifest(tmp_path: Path) -> None:
    table = pd.DataFrame({"clip_id": ["a", "b", "a"], "emotion": ["happy", "sad", "happy"], "x": [1, 2, 3]})
    table.to_csv(tmp_path / "labels.csv", index=False)
    table.to_parquet(tmp_path / "manifest.parquet", index=False)
    for name in ("labels.csv", "manifest.parquet"):
        assert read_labels(tmp_path / name) == {"a": "happy", "b": "sad"}
    for text, message in (
        ("clip_id,emotion\na,joyful\n", "joyful"),
        ("clip_id,emotion\na,happy\na,sad\n", "both happy and sad"),
        ("clip,emotion\n", "missing"),
        ("", "cannot be read"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(DicetalkError, match=message):
            read_labels(tmp_path / "bad.csv")


def test_one_system_or_no_common_video_is_refused(tmp_path: Path) -> None:
    folders = write_systems(tmp_path, 1)
    with pytest.raises(DicetalkError, match="at least two systems"):
        find_clips({"alphasys": folders["alphasys"]}, None)
    (folders["betasys"] / "clip0.mp4").rename(folders["betasys"] / "other.mp4")
    with pytest.raises(DicetalkError, match="No video is usable for every system"):
        find_clips(folders, None)


def test_a_hostile_title_stays_text(study: Study, tmp_path: Path) -> None:
    plan = Plan("</title><script>alert(1)</script>", 1, Size(1, 2, 0, 0), 0)
    build_study(study.folders, None, plan, tmp_path / "s", tmp_path / "k.json")
    page = (tmp_path / "s/index.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "a clear emotion" in page  # asked without labels


def test_a_broken_key_is_refused(study: Study, tmp_path: Path) -> None:
    content = json.loads(study.key_path.read_text())
    content["slots"][0][0] = "ffffffffff"
    (tmp_path / "key.json").write_text(json.dumps(content))
    with pytest.raises(DicetalkError, match="unknown trial"):
        read_key(tmp_path / "key.json")
    with pytest.raises(DicetalkError, match="no key"):
        read_key(study.folders["alphasys"].parent / "labels.csv")


def test_the_command_builds_and_explains(tmp_path: Path) -> None:
    folders = write_systems(tmp_path, 2)
    systems = [part for name, path in folders.items() for part in ("--system", f"{name}={path}")]
    options = ["--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "s")]
    sizes = ["--raters", "2", "--ratings", "3", "--pairs", "2", "--checks", "2"]
    result = CliRunner().invoke(app, ["study", "build", *systems, *options, *sizes])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "s/index.html").is_file() and (tmp_path / "s.key.json").is_file()
    for value, message in (("x", "NAME=PATH"), ("a=/nowhere", "does not exist"), ("alphasys=/tmp", "twice")):
        result = CliRunner().invoke(app, ["study", "build", *systems, "--system", value, *options])
        assert result.exit_code == 1 and message in str(result.exception)
