"""The arithmetic of metrics against independent public implementations."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from oracles import oracle

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.metrics.frechet import Moments, frechet_distance
from dicetalk.evaluation.metrics.pixels import compare_pixels
from dicetalk.evaluation.metrics.sync import sync_score
from dicetalk.evaluation.mfcc import mfcc
from dicetalk.evaluation.published.readers import clean_resize, i3d_input, reference_resize


def features(seed: int, count: int, dim: int = 24) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.abs(rng.standard_normal((count, dim)) @ rng.standard_normal((dim, dim))) + 0.4


def pytorch_fid(a: np.ndarray, b: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> float:
    """`pytorch_fid.fid_score`, without the packages it imports for reading images."""
    for name in ("torchvision", "torchvision.transforms", "pytorch_fid.inception"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    network = types.SimpleNamespace(BLOCK_INDEX_BY_DIM={2048: 3})
    monkeypatch.setattr(sys.modules["pytorch_fid.inception"], "InceptionV3", network, raising=False)
    module = oracle("pytorch_fid", "fid_score")
    moments = (value for x in (a, b) for value in (x.mean(0), np.cov(x, rowvar=False)))
    return float(module.calculate_frechet_distance(*moments))


def torchmetrics_fid(a: np.ndarray, b: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> float:
    from torchmetrics.image.fid import _compute_fid

    moments = (value for x in (a, b) for value in (x.mean(0), np.cov(x, rowvar=False)))
    return _compute_fid(*(torch.from_numpy(value) for value in moments)).item()


@pytest.mark.parametrize("reference", [pytorch_fid, torchmetrics_fid])
def test_frechet_distance(reference, monkeypatch):
    a, b = features(1, 300), features(2, 200)
    in_parts = sum((Moments.of(part) for part in np.array_split(a, 7)), Moments.of(a[:0]))
    expected = reference(a, b, monkeypatch)
    assert expected > 1
    assert frechet_distance(in_parts, Moments.of(b)) == pytest.approx(expected, rel=1e-6)


def test_sync_scores():
    """`SyncNetInstance.evaluate` after the networks: distances, their mean per shift, median - minimum."""
    reference = oracle("syncnet_python", "SyncNetInstance")
    rng = np.random.default_rng(3)
    lips = rng.standard_normal((60, 1024)).astype(np.float32)
    sound = np.roll(lips, 4, axis=0) + 0.7 * rng.standard_normal((60, 1024)).astype(np.float32)
    distances = reference.calc_pdist(torch.from_numpy(lips), torch.from_numpy(sound), vshift=15)
    mean = torch.stack(distances, 1).mean(1)
    ours = sync_score(lips, sound)
    assert ours.offset_frames == 15 - int(mean.argmin()) == -4
    assert ours.distance == pytest.approx(mean.min().item(), rel=1e-4)
    assert ours.confidence == pytest.approx((mean.median() - mean.min()).item(), rel=1e-4)


def test_mfcc():
    reference = oracle("python_speech_features", "base")
    rng = np.random.default_rng(4)
    samples = (0.2 * rng.standard_normal(16000 + 77) * np.sin(np.arange(16077) / 900)).astype(np.float32)
    expected = reference.mfcc(np.round(samples.astype(np.float64) * 32767).astype(np.int16), 16000)
    np.testing.assert_allclose(mfcc(samples), expected, rtol=1e-7, atol=1e-7)


def test_reference_resize_is_half_pixel_bilinear_without_antialiasing():
    """One row from 598 px to 299: each output is the mean of two neighbours, whatever lies between."""
    row = np.random.default_rng(0).integers(0, 256, 598, dtype=np.uint8)
    image = np.broadcast_to(row[None, None, :, None], (1, 299, 598, 3)).copy()
    resized = reference_resize(torch.from_numpy(image))
    expected = row.reshape(299, 2).astype(float).mean(axis=1) / 127.5 - 1
    np.testing.assert_allclose(resized[0, 1, 7].numpy(), expected, atol=1e-5)


def test_clean_resize_does_not_alias():
    """Stripes of one pixel are grey from afar; without antialiasing they become a pattern."""
    stripes = np.zeros((1, 900, 900, 3), np.uint8)
    stripes[:, :, ::2] = 255
    clean, reference = (resize(torch.from_numpy(stripes)) for resize in (clean_resize, reference_resize))
    assert clean.shape == reference.shape == (1, 3, 299, 299)
    middle = slice(20, -20)
    assert clean[..., middle, middle].std() < 0.05 < 0.3 < reference[..., middle, middle].std()
    assert clean.mean().item() == pytest.approx(0.0, abs=0.01)


def test_i3d_sees_the_middle_square():
    frames = np.zeros((16, 100, 300, 3), np.uint8)
    frames[:, :, 100:200] = 255
    seen = i3d_input(frames)
    assert seen.shape == (1, 3, 16, 224, 224)
    assert (seen[..., 5:-5] > 0.99).all()


def test_equal_videos_have_no_psnr_and_tiny_ones_nothing():
    frames = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)
    compared = compare_pixels(frames, frames, stride=5)
    assert set(compared) == {"ssim"} and compared["ssim"] == pytest.approx(1.0)
    with pytest.raises(DicetalkError, match="8 x 8 px"):
        compare_pixels(frames, frames[:, :8, :8], stride=5)


def test_psnr_and_ssim_of_constants():
    """PSNR by its definition; SSIM of two constants is (2ab + c) / (a^2 + b^2 + c), c = 2.55^2."""
    a = np.full((1, 32, 32, 3), 100, np.uint8)
    compared = compare_pixels(a + np.uint8(10), a, stride=5)
    assert compared["psnr"] == pytest.approx(10 * np.log10(255**2 / 100))
    assert compared["ssim"] == pytest.approx((2 * 110 * 100 + 6.5025) / (110**2 + 100**2 + 6.5025), abs=3e-4)
