"""Golden numbers come from python_speech_features 0.6: `mfcc(samples_int16, 16000)`."""

from __future__ import annotations

import numpy as np
import pytest

from dicetalk.evaluation.mfcc import mfcc


def tone() -> np.ndarray:
    time = np.arange(4000) / 16000
    return (0.3 * np.sin(2 * np.pi * 220 * time) + 0.1 * np.sin(2 * np.pi * 1900 * time * (1 + time))).astype(
        np.float32
    )


def test_equals_the_reference_package():
    coefficients = mfcc(tone())
    assert coefficients.shape == GOLDEN_SHAPE
    np.testing.assert_allclose(coefficients[[0, 11]], GOLDEN, rtol=1e-6)


@pytest.mark.parametrize("samples, windows", [(0, 1), (400, 1), (401, 2), (16000, 99)])
def test_number_of_windows(samples, windows):
    assert mfcc(np.zeros(samples, dtype=np.float32)).shape == (windows, 13)


def test_silence_is_finite():
    assert np.isfinite(mfcc(np.zeros(1600, dtype=np.float32))).all()


GOLDEN_SHAPE = (24, 13)
GOLDEN = [
    [
        20.30728,
        1.43125,
        -10.51851,
        31.35714,
        34.39468,
        -30.43593,
        -48.74313,
        -0.6169977,
        2.773223,
        -42.72247,
        -38.93849,
        -5.00817,
        -13.22924,
    ],
    [
        20.63826,
        4.445439,
        -14.05532,
        36.29241,
        18.98173,
        -35.98676,
        -7.142492,
        13.44958,
        -37.35931,
        -40.37569,
        0.6377934,
        -16.50068,
        -36.37826,
    ],
]
