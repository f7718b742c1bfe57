"""Each change of the augmentation alone, where its result is known, and how far it goes."""

from __future__ import annotations

import math

import pytest
import torch

from dicetalk.training import augmentation
from dicetalk.training.augmentation import augment


def still(monkeypatch: pytest.MonkeyPatch, **limits: float) -> None:
    """Switch all changes off but those named; `torch.rand` says 1: as far as the limit goes."""
    for name in ("SHIFT", "STRETCH", "ROTATION", "BRIGHTNESS", "CONTRAST", "NOISE"):
        monkeypatch.setattr(augmentation, f"MAX_{name}", limits.get(name, 0.0))
    monkeypatch.setattr(augmentation.torch, "rand", lambda *size: torch.ones(*size))
    if "soften" not in limits:
        monkeypatch.setattr(augmentation, "_soften", lambda frames: frames)


PICTURE = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))  # 2 samples of 2 frames


def test_nothing_changes_without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    still(monkeypatch)
    assert torch.allclose(augment(PICTURE), PICTURE, atol=1e-5)


def test_a_shift_moves_all_frames_along_both_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    still(monkeypatch, SHIFT=2 / 8)  # of half the side of 16: two pixels
    moved = augment(PICTURE)
    assert torch.allclose(moved[..., :-2, :-2], PICTURE[..., 2:, 2:], atol=1e-5)
    assert torch.allclose(moved[..., -1, :-2], PICTURE[..., -1, 2:], atol=1e-5)  # the border is repeated


def test_a_rotation_turns_and_keeps_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    still(monkeypatch, ROTATION=math.pi / 2)
    turned = augment(PICTURE)
    assert torch.allclose(turned, torch.rot90(PICTURE, 1, (-2, -1)), atol=1e-4)
    still(monkeypatch, ROTATION=math.pi)
    assert torch.allclose(augment(PICTURE), PICTURE.flip(-1, -2), atol=1e-4)


def test_width_and_height_are_stretched_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    still(monkeypatch, STRETCH=1.0)  # the double: the picture shrinks to half around its centre
    draws = iter([0.5, 1.0, 0.5, 0.5, 0.5])  # angle, width, height, x, y; 0.5 is no change
    monkeypatch.setattr(augmentation.torch, "rand", lambda *size: torch.full(size, next(draws)))
    moved = augmentation._move(PICTURE)
    expected = (PICTURE[..., 0::2] + PICTURE[..., 1::2]) / 2
    assert torch.allclose(moved[..., 4:12], expected, atol=1e-5)


def test_draws_reach_both_ends_of_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    column = torch.arange(64.0).expand(3000, 1, 3, 64, 64)  # each pixel says where it is
    monkeypatch.setattr(augmentation, "MAX_STRETCH", 0.0)
    monkeypatch.setattr(augmentation, "MAX_ROTATION", 0.0)
    shifts = (augmentation._move(column) - column)[:, 0, 0, 32, 32]
    limit = 0.06 * 32
    assert shifts.min().item() == pytest.approx(-limit, abs=0.05)
    assert shifts.max().item() == pytest.approx(limit, abs=0.05)
    assert shifts.mean().item() == pytest.approx(0.0, abs=0.1)


def test_contrast_and_brightness_have_their_ranges_and_tint_is_per_channel() -> None:
    torch.manual_seed(0)
    frames = torch.zeros(4000, 2, 3, 1, 2)
    frames[..., 1] = 1.0  # black and white
    black, white = augmentation._recolour(frames, 0.0).unbind(-1)
    assert (black.min().item(), black.max().item()) == (
        pytest.approx(-0.2, abs=0.005),
        pytest.approx(0.2, abs=0.005),
    )
    contrast = white - black
    assert (contrast.min().item(), contrast.max().item()) == (
        pytest.approx(0.75, abs=0.005),
        pytest.approx(1.25, abs=0.005),
    )
    assert (contrast.flatten(1).std(1) < 1e-6).all()  # of all channels and frames of a sample alike
    black, white = augmentation._recolour(frames, 0.3).unbind(-1)
    gains = (white - black).squeeze(-1)
    assert torch.allclose(gains[:, 0], gains[:, 1], atol=1e-6)  # frames of a window alike
    ratios = gains[:, 0, 0] / gains[:, 0, 1]
    assert ratios.max().item() == pytest.approx(1.3 / 0.7, rel=0.05)
    assert ratios.log().mean().item() == pytest.approx(0.0, abs=0.02)


def test_half_of_the_samples_are_softened_by_any_amount() -> None:
    torch.manual_seed(0)
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4).expand(4000, 2, 1, 8, 8)
    kept = augmentation._soften(board)[:, :, 0, 0, 0]  # of half the resolution the board is grey
    assert torch.equal(kept[:, 0], kept[:, 1])
    assert (kept[:, 0] == 1.0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    softened = kept[:, 0][kept[:, 0] < 1.0]
    assert softened.min() >= 0 and softened.mean().item() == pytest.approx(0.5, abs=0.03)


def test_softening_averages_blocks_of_two_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        augmentation, "_uniform", lambda frames, low, high: torch.full((1, 1, 1, 1, 1), float(high))
    )
    blocks = (
        torch.tensor([[0.0, 1.0], [2.0, 3.0]])
        .repeat_interleave(4, 0)
        .repeat_interleave(4, 1)
        .expand(1, 1, 3, 8, 8)
    )
    soft = augmentation._soften(blocks)
    assert soft[0, 0, 0, 0].tolist() == pytest.approx([0, 0, 0, 0.25, 0.75, 1, 1, 1])


def test_noise_has_a_fine_and_a_coarse_grain() -> None:
    torch.manual_seed(0)
    noise = augmentation._blotchy_noise(torch.zeros(4, 2, 3, 64, 64))
    assert noise.shape == (4, 2, 3, 64, 64)
    # Between coarse points bilinear weights are (7, 1), (5, 3), (3, 5), (1, 7) eighths: their mean square is
    # 168 / 256 an axis, their mean product with the next pixel's (38 + 30 + 38 + 49) / 256.
    inner = noise[..., 4:-4, 4:-4]
    assert inner.var().item() == pytest.approx(1 + 4 * (168 / 256) ** 2, rel=0.05)
    product = (inner[..., 1:] * inner[..., :-1]).mean().item()
    assert product == pytest.approx(4 * (155 / 256) * (168 / 256), rel=0.07)
    assert not torch.equal(noise[0, 0], noise[0, 1])


def test_frames_get_up_to_the_largest_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(augmentation, "_recolour", lambda frames, tint: frames)
    monkeypatch.setattr(augmentation, "_blotchy_noise", torch.ones_like)
    amounts = augment(torch.zeros(400, 1, 3, 16, 16)).flatten(1)[:, 0]
    assert amounts.min().item() == pytest.approx(0.0, abs=0.001)
    assert amounts.max().item() == pytest.approx(0.04, abs=0.001)


def test_the_tint_that_is_asked_for_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    tints = []
    monkeypatch.setattr(augmentation, "_recolour", lambda frames, tint: tints.append(tint) or frames)
    augment(PICTURE)
    augment(PICTURE, tint=0.3)
    assert tints == [0.0, 0.3]
