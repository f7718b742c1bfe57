"""Portrait preprocessing equals the official one."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from dicetalk.models.preprocessing import clip_pixels, face_mask, image_to_tensor, model_size


@pytest.mark.parametrize("case", ["landscape", "portrait", "exact"])
def test_image_mask_and_clip_input(vectors, case):
    golden = vectors("preprocess")
    meta = golden.meta["cases"][case]
    source = Image.fromarray(golden[f"in.{case}.image_uint8"].numpy())
    size = model_size(*source.size, short_side=meta["image_size"])
    assert list(size[::-1]) == meta["out_hw"]
    image = source.resize(size, Image.Resampling.LANCZOS)
    torch.testing.assert_close(image_to_tensor(image), golden[f"out.{case}.ref_img"], rtol=0, atol=1e-6)
    pixels, rows = clip_pixels(image), golden[f"out.{case}.clip_image"]  # every n-th row is stored
    pixels = pixels[:, :: pixels.shape[1] // rows.shape[1]]
    torch.testing.assert_close(pixels, rows, rtol=1e-3, atol=1e-3)
    mask = face_mask(tuple(meta["bbox_xywh"]), source.size, size, meta["area"])
    torch.testing.assert_close(mask[0], golden[f"out.{case}.face_mask_ch0"], rtol=0, atol=1e-6)
