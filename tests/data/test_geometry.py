"""How far two boxes are the same, by hand."""

from __future__ import annotations

import pytest

from dicetalk.data.geometry import overlap


def test_overlap():
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (20, 0, 5, 5)) == 0
