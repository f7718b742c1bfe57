"""Crop and mask rules against numbers computed by the released inference code."""

from __future__ import annotations

import numpy as np
import pytest
from golden_vectors import load_vectors

from dicetalk.models.boxes import mask_rectangle, square_crop


@pytest.fixture(scope="module")
def golden():
    return load_vectors("preprocess")


def test_square_crop_equals_the_released_code(golden):
    for case in golden.meta["cases"]["process_bbox"]:
        x, y, side = square_crop(case["bbox_xyxy"], case["expand_ratio"], case["width"], case["height"])
        assert [x, y, x + side, y + side] == case["crop"]


@pytest.mark.parametrize("name", ["landscape", "portrait", "exact"])
def test_mask_equals_the_released_code(golden, name):
    from PIL import Image

    case = golden.meta["cases"][name]
    width, height = case["image_wh"]
    left, top, right, bottom = mask_rectangle(case["bbox_xywh"], case["area"], width, height)
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 255
    out_height, out_width = case["out_hw"]
    resized = Image.fromarray(mask).resize((out_width, out_height), Image.Resampling.LANCZOS)
    expected = golden[f"out.{name}.face_mask_ch0"].numpy()
    assert np.abs(np.asarray(resized, np.float32) / 255 - expected).max() < 1e-6


@pytest.mark.parametrize("box", [(10, 10, 60, 90), (-20, -30, 40, 40), (150, 60, 230, 130)])
def test_crop_is_square_and_inside(box):
    x, y, side = square_crop(box, 0.5, 200, 120)
    assert 0 <= x and 0 <= y and x + side <= 200 and y + side <= 120 and side > 0
