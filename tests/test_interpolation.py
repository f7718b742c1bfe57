"""Frames between the model's: which, how many, by what, and in bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dicetalk.errors import DicetalkError
from dicetalk.generation import interpolation
from dicetalk.generation.interpolation import (
    LinearInterpolator,
    RifeInterpolator,
    load_interpolator,
    to_output_rate,
)
from dicetalk.models.rife import IFNet


@pytest.fixture(scope="module")
def rife() -> RifeInterpolator:
    torch.manual_seed(0)
    return RifeInterpolator(IFNet(channels=8).eval())


def test_frames_between_are_blends_and_the_last_repeats():
    frames = np.stack([np.full((1, 1, 3), value) for value in (0.0, 0.4, 1.0)]).astype(np.float32)
    assert to_output_rate(frames, 2)[:, 0, 0, 0].tolist() == [0, 51, 102, 178, 255, 255]
    assert to_output_rate(frames, 4)[:, 0, 0, 0].tolist() == [
        0,
        26,
        51,
        76,
        102,
        140,
        178,
        217,
        255,
        255,
        255,
        255,
    ]
    assert to_output_rate(frames, 1)[:, 0, 0, 0].tolist() == [0, 102, 255]
    assert to_output_rate(frames[:1], 2)[:, 0, 0, 0].tolist() == [0, 0]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_batches_leave_no_seam_and_keep_the_generated_frames(rife: RifeInterpolator, monkeypatch, count: int):
    frames = np.random.default_rng(0).random((count, 20, 36, 3), np.float32)
    calls = []
    between = rife.between

    def spy(first, second, share):
        calls.append(len(first))
        return between(first, second, share)

    monkeypatch.setattr(rife, "between", spy)
    result = to_output_rate(frames, 2, rife)
    assert result.shape == (2 * count, 20, 36, 3) and result.dtype == np.uint8
    assert (result[::2] == np.round(frames * 255)).all() and (result[-1] == result[-2]).all()
    assert sum(calls) == count - 1 and max(calls, default=0) <= interpolation.PAIRS_PER_BATCH
    for i in range(count - 1):
        alone = between(frames[i : i + 1], frames[i + 1 : i + 2], 0.5)[0]
        assert np.abs(result[2 * i + 1] - alone * 255).max() < 0.51


def test_rife_reaches_quarters_by_halving_and_refuses_thirds(rife: RifeInterpolator):
    first, second = np.random.default_rng(1).random((2, 1, 32, 32, 3), np.float32)
    half = rife.between(first, second, 0.5)
    assert (rife.between(first, second, 0.25) == rife.between(first, half, 0.5)).all()
    assert (rife.between(first, second, 0.75) == rife.between(half, second, 0.5)).all()
    with pytest.raises(DicetalkError, match="interpolation: linear"):
        rife.between(first, second, 1 / 3)


def test_exchanging_the_pictures_changes_nothing():
    torch.manual_seed(1)
    model = IFNet(channels=8)
    first, second = torch.rand(2, 1, 3, 32, 48)
    with torch.no_grad():
        forth, back = model(first, second), model(second, first)
    torch.testing.assert_close(forth.middle, back.middle, rtol=0, atol=1e-5)
    torch.testing.assert_close(forth.mask, 1 - back.mask, rtol=0, atol=1e-5)


def test_published_file_is_loaded_through_the_registry(monkeypatch, tmp_path: Path):
    torch.manual_seed(2)
    model = IFNet()
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    for zipped in (True, False):  # the published file is of the time of the change of format
        torch.save(state, tmp_path / "flownet.pkl", _use_new_zipfile_serialization=zipped)
        monkeypatch.setenv("DICETALK_WEIGHTS", str(tmp_path))
        loaded = load_interpolator("rife")
        assert loaded.name.startswith("interpolated by RIFE")
        assert all(
            torch.equal(loaded.model.state_dict()[name], value) for name, value in model.state_dict().items()
        )


def test_without_weights_a_plain_filter_named_so(monkeypatch, capsys):
    def refuse(name):
        raise DicetalkError(f"no {name}")

    monkeypatch.setattr(interpolation.weights, "resolve", refuse)
    assert isinstance(load_interpolator("rife"), LinearInterpolator)
    assert "no rife-hdv3" in capsys.readouterr().err
    assert load_interpolator("linear").name == "linear interpolations"
