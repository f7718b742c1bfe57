"""The face_alignment backend with stand-in weights under the published file name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_face import SETTINGS, SquareTracker, picture, row, write_clip
from threads import allowed_threads, threads_in_use

from dicetalk import weights
from dicetalk.data import fan, track
from dicetalk.data.clip import preprocess_clip
from dicetalk.errors import DicetalkError
from dicetalk.files import sha256_file

NAME = "2DFAN4-11f355bf06.pth.tar"


@pytest.fixture
def stand_in(tmp_path_factory, monkeypatch) -> Path:
    """A network of the published shape, whose points are what its last layer's bias says."""
    face_alignment = pytest.importorskip("face_alignment", reason="pip install --no-deps face-alignment")
    import torch

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(face_alignment.models.FAN(4).state_dict(), folder / NAME)
    entry = replace(weights.get(fan.WEIGHTS), files={NAME: sha256_file(folder / NAME)})
    monkeypatch.setitem(weights.registry(), fan.WEIGHTS, entry)
    monkeypatch.setenv("DICETALK_WEIGHTS", str(folder))
    return folder / NAME


def test_points_come_from_the_published_file(stand_in, tmp_path, monkeypatch):
    import face_alignment
    import torch

    assert list(weights.get(fan.WEIGHTS).files) == [NAME]
    hub = torch.hub.get_dir()
    reader = fan.FanLandmarks()
    assert torch.hub.get_dir() == hub
    loaded = reader._network.face_alignment_net.state_dict()
    stored = torch.load(stand_in, weights_only=True)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())

    # The network looks at a square around the box: a map that peaks in its middle puts all points there.
    middle = torch.zeros(1, 68, 64, 64)
    middle[..., 32, 32] = 1
    monkeypatch.setattr(reader._network, "face_alignment_net", lambda batch: [middle.clone()])
    monkeypatch.setattr(reader._network, "flip_input", False)
    points = reader.points(picture(60, 40, 40), np.array([60.0, 40.0, 40.0, 40.0]))
    centre = np.array([80.0, 60.0 - 0.12 * 40])  # the package looks a little above the box's centre
    assert points.shape == (68, 2) and np.abs(points - centre).max() < 2

    monkeypatch.setattr(track, "FaceTracker", SquareTracker)
    monkeypatch.setattr(fan, "FanLandmarks", lambda: reader)
    monkeypatch.setattr(track, "FanLandmarks", lambda: reader)
    monkeypatch.setattr(track, "FaceDetector", lambda: None)
    monkeypatch.setattr(track, "FaceMesh", lambda: None)
    track.networks.cache_clear()
    write_clip(tmp_path / "clip.mp4", num_frames=12)
    sample = preprocess_clip(row(), tmp_path, SETTINGS.model_copy(update={"landmarks": "face_alignment"}))
    track.networks.cache_clear()
    assert isinstance(face_alignment.__version__, str) and sample.landmarks().shape == (12, 68, 2)
    x, y, side = sample.meta["source_crop"]
    expected = (centre - (x, y) + 0.5) * 64 / side - 0.5
    assert np.abs(sample.landmarks() - expected).max() < 2


def test_a_process_places_points_on_one_thread_whatever_is_allowed(stand_in):
    with allowed_threads(3):
        fan.FanLandmarks()
        assert threads_in_use()["torch"] == 1


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "face_alignment", None)
    with pytest.raises(DicetalkError, match="pip install --no-deps face-alignment==1.5.0"):
        fan.FanLandmarks()
