"""Mel-frequency cepstral coefficients as SyncNet reads them: those of the package `python_speech_features`.

13 coefficients, 25 ms windows every 10 ms, 26 mel filters of a 512-point FFT, pre-emphasis 0.97, sine lifter
22, and the log energy of the window in place of coefficient 0.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.fft import dct

SAMPLE_RATE_HZ = 16000
RATE_HZ = 100
NUM_COEFFICIENTS = 13

_WINDOW, _HOP = 400, 160
_NUM_FFT, _NUM_FILTERS = 512, 26
_PRE_EMPHASIS, _LIFTER = 0.97, 22


def mfcc(samples: np.ndarray) -> np.ndarray:
    """Return coefficients `(windows, 13)` float64, 100 a second.

    Args:
        samples: mono sound `(samples,)` in [-1, 1] at 16 kHz. It is scaled to the 16-bit range, as SyncNet
            reads it.
    """
    samples = np.round(samples.astype(np.float64) * 32767.0)
    if samples.size:
        samples = np.append(samples[0], samples[1:] - _PRE_EMPHASIS * samples[:-1])
    num_windows = 1 + max(0, -(-(samples.size - _WINDOW) // _HOP))
    padded = np.zeros((num_windows - 1) * _HOP + _WINDOW)
    padded[: samples.size] = samples
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(windows, _NUM_FFT)) ** 2 / _NUM_FFT
    smallest = np.finfo(float).eps
    energy = np.maximum(power.sum(axis=1), smallest)
    mel = np.maximum(power @ _filters().T, smallest)
    coefficients = dct(np.log(mel), type=2, axis=1, norm="ortho")[:, :NUM_COEFFICIENTS]
    coefficients *= 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(NUM_COEFFICIENTS) / _LIFTER)
    coefficients[:, 0] = np.log(energy)
    return coefficients


@lru_cache(maxsize=1)
def _filters() -> np.ndarray:
    """Return triangular mel filters `(26, 257)` with corners rounded down to FFT bins."""
    highest = 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, highest, _NUM_FILTERS + 2) / 2595) - 1)
    corners = np.floor((_NUM_FFT + 1) * hertz / SAMPLE_RATE_HZ)
    bins = np.arange(_NUM_FFT // 2 + 1)
    left, centre, right = (corners[i : i + _NUM_FILTERS, None] for i in range(3))
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return np.where(
        (bins >= left) & (bins < centre), rising, np.where((bins >= centre) & (bins < right), falling, 0.0)
    )
