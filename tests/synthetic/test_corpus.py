"""The written corpora: layouts, lengths, defects, equal bytes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from dicetalk.config import Synthesize, SyntheticHdtf, SyntheticMead
from dicetalk.data.media import probe, read_audio, read_video
from dicetalk.errors import DicetalkError
from dicetalk.files import sha256_file
from dicetalk.labels import CLASSES
from dicetalk.synthetic.corpus import write_hdtf, write_mead

MEAD = SyntheticMead(
    num_identities=2, clips_per_class=1, clip_seconds=0.8, size_px=48, fps=10.0, num_defects=4
)
HDTF = SyntheticHdtf(num_videos=6, clip_seconds=0.9, height_px=64, fps=25.0)
PARAMS = Synthesize(seed=3, mead=MEAD, hdtf=HDTF)


@pytest.fixture(scope="module")
def mead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw") / "mead"
    assert write_mead(root, PARAMS, workers=1) == {"identities": 2, "clips": 2 * len(CLASSES), "defects": 4}
    return root


@pytest.fixture(scope="module")
def hdtf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw") / "hdtf"
    assert write_hdtf(root, PARAMS, workers=1) == {"videos": 6, "ranges": 9}
    return root


def test_mead_layout(mead: Path) -> None:
    people = sorted(path.name for path in mead.iterdir() if path.is_dir())
    assert [re.fullmatch(r"([MW])\d{3}", name).group(1) for name in people] == ["M", "W"]
    for person in people:
        for emotion, level in CLASSES:
            folder = Path(emotion) / f"level_{level}"
            videos = {p.stem for p in (mead / person / "video" / "front" / folder).glob("*.mp4")}
            sounds = {p.stem for p in (mead / person / "audio" / folder).glob("*.m4a")}
            assert videos == sounds
            assert len([name for name in videos if int(name) <= 40]) == 1
    assert len(list(mead.rglob("*.mp4"))) == 2 * len(CLASSES) + 4


def test_mead_media(mead: Path) -> None:
    video = next(path for path in sorted(mead.rglob("*.mp4")) if int(path.stem) <= 40)
    sound = mead / video.parts[-6] / "audio" / Path(*video.parts[-3:]).with_suffix(".m4a")
    picture, heard = probe(video), probe(sound)
    assert (picture.width, picture.height, picture.fps, picture.num_frames) == (48, 48, 10, 8)
    assert heard.sample_rate_hz == 48000
    assert abs(heard.duration_seconds - picture.duration_seconds) <= 1 / 10
    assert np.abs(read_audio(sound)).max() > 0.02


def test_mead_defects_are_real(mead: Path) -> None:
    bad = [path for path in mead.rglob("*.mp4") if int(path.stem) > 40]
    assert len(bad) == 4
    unreadable, short, silent, leaving = 0, 0, 0, 0
    for video in bad:
        sound = mead / video.parts[-6] / "audio" / Path(*video.parts[-3:]).with_suffix(".m4a")
        silent += np.abs(read_audio(sound)).max() < 1e-4
        try:
            frames = list(read_video(video))
        except DicetalkError:
            unreadable += 1
            continue
        short += len(frames) < 10
        first, last = (np.ptp(frame[6:28].astype(int), axis=1).max() for frame in (frames[0], frames[-1]))
        leaving += first > 60 > 20 > last
    assert (unreadable, short, silent, leaving) == (1, 1, 1, 1)


def test_equal_parameters_give_equal_bytes_in_any_number_of_processes(mead: Path, tmp_path: Path) -> None:
    write_mead(tmp_path / "again", PARAMS, workers=2)
    first = {path.relative_to(mead): sha256_file(path) for path in mead.rglob("*") if path.is_file()}
    again = tmp_path / "again"
    assert first == {
        path.relative_to(again): sha256_file(path) for path in again.rglob("*") if path.is_file()
    }


def test_hdtf_files(hdtf: Path) -> None:
    kinds = ("video_url", "resolution", "annotion_time", "crop_wh", "crop_ratio")
    names = {f"{subset}_{kind}.txt" for subset in ("RD", "WDA", "WRA") for kind in kinds}
    assert names <= {path.name for path in hdtf.iterdir()}
    assert len(list((hdtf / "videos").glob("*.mp4"))) == 6
    assert (hdtf / "WDA_video_url.txt").read_bytes().startswith(b"\xef\xbb\xbf")
    assert (hdtf / "WRA_annotion_time.txt").read_text().splitlines()[0].endswith(" ")
    assert not (hdtf / "RD_resolution.txt").read_text().endswith("\n")
    annotated = {line.split()[0] for line in (hdtf / "WDA_annotion_time.txt").read_text().splitlines()}
    on_disk = {path.name.removeprefix("WDA_") for path in (hdtf / "videos").glob("WDA_*")}
    assert on_disk < annotated


def test_hdtf_crops_lie_inside_the_reference_picture(hdtf: Path) -> None:
    for subset in ("RD", "WDA", "WRA"):
        heights = dict(line.split() for line in (hdtf / f"{subset}_resolution.txt").read_text().splitlines())
        for line in (hdtf / f"{subset}_crop_wh.txt").read_text().splitlines():
            name, *numbers = line.split()
            left, width, top, height = map(int, numbers)
            reference = int(heights[name.rsplit("_", 1)[0] + ".mp4"])
            assert width == height > 0.4 * reference
            assert 0 <= top <= top + height <= reference + 1 and 0 <= left


def test_hdtf_times_are_covered_by_picture_and_sound(hdtf: Path) -> None:
    for line in (hdtf / "RD_annotion_time.txt").read_text().splitlines():
        name, *ranges = line.split()
        media = probe(hdtf / "videos" / f"RD_{name}")
        assert media.width > media.height == 64 and media.has_audio
        for span in ranges:
            start, end = (int(clock[:2]) * 60 + int(clock[3:]) for clock in span.split("-"))
            assert end - start == 1 and end <= media.duration_seconds
            sound = read_audio(hdtf / "videos" / f"RD_{name}", 16000, start, end)
            assert np.abs(sound).max() > 0.02


def test_real_videos_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.mp4").write_bytes(b"precious")
    with pytest.raises(DicetalkError, match="did not write"):
        write_mead(tmp_path, PARAMS, workers=1)
    assert (tmp_path / "mine.mp4").read_bytes() == b"precious"


def test_too_many_clips_name_the_parameter(tmp_path: Path) -> None:
    params = PARAMS.model_copy(update={"mead": MEAD.model_copy(update={"clips_per_class": 31})})
    with pytest.raises(DicetalkError, match="clips_per_class"):
        write_mead(tmp_path / "mead", params, workers=1)
