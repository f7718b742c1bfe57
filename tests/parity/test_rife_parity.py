"""IFNet HDv3 equals the official frame interpolation, forward and in its names."""

from __future__ import annotations

import pytest
import torch
from hashed_tensors import fill

from dicetalk.models.rife import IFNet


def test_names_and_shapes(vectors):
    expected = vectors("rife_seeded").meta["state_dict"]
    with torch.device("meta"):
        model = IFNet()
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == expected


@pytest.mark.parametrize("size", ["64x96", "32x32"])
@torch.no_grad()
def test_middle_flow_and_mask(vectors, close, size):
    reference = vectors("rife_seeded")
    model = fill(IFNet().eval(), reference.meta["weight_seed"])
    first, second = reference[f"in.{size}.img0"], reference[f"in.{size}.img1"]
    result = model(first, second)
    close(result.middle, reference[f"out.{size}.middle"])
    # Flows reach 32 pixels (deviation 6.2); the reference's own float32 is 5e-5 pixels away from float64
    close(result.flow, reference[f"out.{size}.flow"], atol=1e-4)
    close(result.mask, reference[f"out.{size}.mask"])
    close(model.middle(first, second), reference[f"out.{size}.middle"].clamp(0, 1))
