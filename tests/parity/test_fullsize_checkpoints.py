"""Files with the released names and shapes go in and out at full size, without a second copy in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.projection import AudioProjection
from dicetalk.models.unet import DiceTalkUNet
from dicetalk.release.official_files import OFFICIAL_FILES, export_official, import_official

NETWORKS = {
    "unet": DiceTalkUNet,
    "audio_projection": AudioProjection,
    "emotion_model": EmotionModel,
    "pose_guider": PoseGuider,
}


def write_official(contract, folder: Path, names) -> None:
    """Write files of the contracts' names and shapes; each value tells its tensor's place in the file."""
    for name in names:
        shapes = contract(Path(OFFICIAL_FILES[name]).stem)
        values = {
            key: torch.full(shape, i / 2048, dtype=torch.float16)
            for i, (key, shape) in enumerate(shapes.items())
        }
        torch.save(values, folder / OFFICIAL_FILES[name])


@pytest.mark.parametrize("name", ["audio_projection", "emotion_model", "pose_guider"])
def test_released_names_and_shapes_go_in_and_out(contract, tmp_path, name):
    write_official(contract, tmp_path, [name])
    with torch.device("meta"):
        module = NETWORKS[name]().half()
    module = module.to_empty(device="cpu")
    import_official(tmp_path, {name: module})
    (written,) = export_official(tmp_path / "out", {name: module})
    original, back = (
        torch.load(path, weights_only=True, mmap=True) for path in (tmp_path / OFFICIAL_FILES[name], written)
    )
    assert {key: tuple(value.shape) for key, value in back.items()} == contract(written.stem)
    assert all(torch.equal(back[key], value) for key, value in original.items())


MEASURE = """
import re, sys
from pathlib import Path
import torch
from dicetalk.release.official_files import import_official
from dicetalk.models.unet import DiceTalkUNet
with torch.device("meta"):
    unet = DiceTalkUNet().half()
def peak_kib():  # not ru_maxrss, which starts with that of the parent process
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak_kib()
unet = unet.to_empty(device="cpu")
import_official(Path(sys.argv[1]), {"unet": unet})
peak = peak_kib()
size = sum(p.numel() * p.element_size() for p in unet.parameters()) / 1024
for number, value in enumerate(unet.state_dict().values()):
    assert value.flatten()[[0, -1]].tolist() == [number / 2048] * 2
print((peak - before) / size)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_the_released_unet_takes_the_memory_of_one_copy(contract, tmp_path):
    write_official(contract, tmp_path, ["unet"])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path], check=True, capture_output=True, text=True
    )
    copies = float(done.stdout)
    print(f"peak memory over the start: {copies:.3f} copies of the UNet")
    assert copies < 1.1
