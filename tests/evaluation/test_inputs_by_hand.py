"""What metric networks are given: spectra, windows, gradients and crops, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dicetalk.data.landmarks import MEDIAPIPE_TO_68
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.clips import Clip, resize
from dicetalk.evaluation.faces import ARCFACE_POINTS, DLIB_POINTS, similarity
from dicetalk.evaluation.gradients import LUMINANCE, oriented_gradients
from dicetalk.evaluation.metrics.pixels import compare_pixels
from dicetalk.evaluation.mfcc import _filters, mfcc
from dicetalk.evaluation.networks import IdentityNet, normalise, to_input
from dicetalk.evaluation.syncnet import InDomainSyncNet, audio_windows, mouth_region, video_windows


def test_mel_filters_are_triangles_of_equal_width_in_mel() -> None:
    filters = _filters()
    assert filters.shape == (26, 257)
    mel = [2595 * math.log10(1 + 8000 / 700) * i / 27 for i in range(28)]
    bins = [math.floor(513 * 700 * (10 ** (m / 2595) - 1) / 16000) for m in mel]
    for i in (0, 7, 25):
        left, centre, right = bins[i : i + 3]
        assert filters[i, centre] == 1.0 and filters[i].argmax() == centre
        assert not filters[i, :left].any() and not filters[i, right:].any() and filters[i, left] == 0.0
        assert filters[i, centre + 1] == pytest.approx((right - centre - 1) / (right - centre))
        if centre - 1 > left:
            assert filters[i, centre - 1] == pytest.approx((centre - 1 - left) / (centre - left))


def test_mfcc_by_its_definition() -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 1000).astype(np.float32)
    found = mfcc(samples)
    assert found.shape == (5, 13)  # 400 samples, then four steps of 160, the last one padded
    scaled = np.round(samples.astype(float) * 32767)
    emphasised = np.concatenate([scaled[:1], scaled[1:] - 0.97 * scaled[:-1], np.zeros(40)])
    window = emphasised[2 * 160 : 2 * 160 + 400]
    power = np.abs(np.fft.rfft(window, 512)) ** 2 / 512
    assert found[2, 0] == pytest.approx(math.log(power.sum()))
    bands = np.log(_filters() @ power)
    for k in (1, 12):
        angles = np.cos(math.pi * k * (2 * np.arange(26) + 1) / 52)
        plain = math.sqrt(2 / 26) * (bands * angles).sum()
        assert found[2, k] == pytest.approx(plain * (1 + 11 * math.sin(math.pi * k / 22)))
    assert np.isfinite(mfcc(np.zeros(400))).all() and mfcc(np.zeros(0)).shape == (1, 13)
    assert mfcc(np.zeros(401)).shape == (2, 13) and mfcc(np.zeros(560)).shape == (2, 13)


def test_lips_are_the_grey_lower_half_in_windows_of_five() -> None:
    frames = torch.zeros(7, 3, 64, 64)
    frames[:, 0, 32:], frames[:, :, :32] = 0.9, 5.0
    frames += torch.arange(7.0)[:, None, None, None]
    region = mouth_region(frames)
    assert region.shape == (7, 1, 32, 64)
    assert region.flatten(1).mean(1).tolist() == pytest.approx([0.3 + i for i in range(7)], rel=1e-4)
    windows = video_windows(region)
    assert windows.shape == (3, 5, 1, 32, 64)
    assert windows[2, :, 0, 0, 0].tolist() == pytest.approx([2.3, 3.3, 4.3, 5.3, 6.3], rel=1e-4)


def test_sound_windows_are_20_columns_from_their_frame_on() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 8 * 640).astype(np.float32)
    windows = audio_windows(sound, 8)
    assert windows.shape == (4, 20, 13)
    assert windows[3].numpy() == pytest.approx(
        np.pad(mfcc(sound), ((0, 4), (0, 0)), mode="edge")[12:32], rel=1e-5
    )
    short = audio_windows(sound[: 8 * 640 - 400], 8)  # the last columns repeat
    columns = mfcc(sound[: 8 * 640 - 400])
    assert short[3, -1].numpy() == pytest.approx(columns[-1], rel=1e-5)
    with pytest.raises(DicetalkError, match="shorter than 8 frames"):
        audio_windows(sound[: 7 * 640 - 200], 8)


@torch.no_grad()
def test_sound_is_standardised_by_the_training_sound() -> None:
    torch.manual_seed(0)
    mean, std = np.linspace(-5, 5, 13), np.linspace(1, 3, 13)
    network = InDomainSyncNet(8, mean, std).eval()
    windows = torch.randn(2, 20, 13)
    expected = network.embed_audio(windows)
    network.mfcc_mean.zero_()
    network.mfcc_std.fill_(1.0)
    by_hand = (windows - torch.from_numpy(mean).float()) / torch.from_numpy(std).float()
    assert torch.allclose(network.embed_audio(by_hand), expected, atol=1e-6)
    assert expected.norm(dim=-1).tolist() == pytest.approx([1.0, 1.0])


def standardised(values: list[float]) -> list[float]:
    """Layer normalisation adds 1e-5 to the variance."""
    return ((np.array(values) - np.mean(values)) / np.sqrt(np.var(values) + 1e-5)).tolist()


def test_brightness_that_rises_in_one_direction_is_seen_in_that_direction() -> None:
    ramp = torch.arange(64.0).expand(1, 3, 64, 64) / 100  # brighter to the right
    for turns, strongest in ((0, 0), (1, 6), (2, 4), (3, 2)):  # of 8 directions, clockwise on the screen
        tokens = oriented_gradients(torch.rot90(ramp, turns, (-2, -1)))
        assert tokens.shape == (1, 64, 32)
        # One token has 8 directions of 4 cells each.
        by_direction = tokens[0, 27].reshape(8, 4).mean(1)
        assert by_direction.argmax().item() == strongest
        assert tokens[0, 27].mean().item() == pytest.approx(0.0, abs=1e-5)
    # Between neighbours the rise is cos 45 degrees as large; the root of sums of two pixels' differences.
    values = oriented_gradients(ramp)[0, 27].reshape(8, 4)[:, 0]
    roots = [math.sqrt(0.02 * max(math.cos(math.pi * k / 4), 0) + 1e-4) for k in range(8)]
    assert values.tolist() == pytest.approx(standardised(roots), abs=1e-4)
    assert sum(LUMINANCE) == pytest.approx(1.0)
    green = torch.zeros(1, 3, 64, 64)
    green[:, 1] = torch.arange(64.0) / 100
    values = oriented_gradients(green)[0, 27].reshape(8, 4)[:, 0]
    roots = [math.sqrt(0.587 * 0.02 * max(math.cos(math.pi * k / 4), 0) + 1e-4) for k in range(8)]
    assert values.tolist() == pytest.approx(standardised(roots), abs=1e-4)


def test_cells_of_a_token_lie_where_they_are_in_the_picture() -> None:
    frames = torch.zeros(1, 3, 64, 64)
    frames[..., 20:, 9:12] = torch.tensor([0.1, 0.2, 0.3])  # columns 8 to 12 of the picture, rows 20 to 23
    frames[..., 24:, :] = 0.0
    tokens = oriented_gradients(frames)[0].reshape(8, 8, 8, 4)
    assert (
        tokens[2, 1, 0].argmax().item() == 2
    )  # the third row and second column of tokens: its lower left cell
    assert tokens[5, 5].abs().max() == 0.0


def test_the_identity_network_sees_the_middle_of_the_crop_only() -> None:
    torch.manual_seed(0)
    network = IdentityNet(3).eval()
    frames = torch.rand(2, 3, 64, 64)
    around = frames.clone()
    around[..., :10, :] = around[..., 54:, :] = around[..., :10] = around[..., 54:] = 0.7  # clothes and hair
    assert torch.equal(network.embed(around), network.embed(frames))
    for row, column in ((10, 32), (53, 32), (32, 10), (32, 53)):
        inside = frames.clone()
        inside[..., row, column] += 1.0
        assert not torch.allclose(network.embed(inside), network.embed(frames))
    logits, embedded = network(frames), network.embed(frames)
    cosines = torch.nn.functional.cosine_similarity(embedded[:, None], network.centres[None], dim=-1)
    assert torch.allclose(logits, 16.0 * cosines, atol=1e-4)
    assert embedded.norm(dim=-1).tolist() == pytest.approx([1.0, 1.0])


def test_frames_become_network_input() -> None:
    frames = np.zeros((1, 2, 2, 3), np.uint8)
    frames[..., 1], frames[..., 2] = 51, 255
    assert normalise(torch.from_numpy(frames))[0, :, 0, 0].tolist() == pytest.approx([-1.0, -0.6, 1.0])
    assert to_input(frames, 4).shape == (1, 3, 4, 4)
    board = (
        np.array([[0, 100], [200, 255]], np.uint8).repeat(2, 0).repeat(2, 1)[None, :, :, None].repeat(3, -1)
    )
    assert resize(board, 2)[0, :, :, 0].tolist() == [[0, 100], [200, 255]]  # means of the blocks
    assert resize(board, 4) is board and resize(board, 9).shape == (1, 9, 9, 3)


def test_cut_clips_keep_frames_and_landmarks_together() -> None:
    clip = Clip(
        "c", "A", None, 0, np.zeros((5, 2, 2, 3), np.uint8), np.zeros(9), np.arange(5.0)[:, None, None]
    )
    cut = clip.cut(3)
    assert len(cut.frames) == 3 and cut.landmarks.flatten().tolist() == [0, 1, 2] and len(cut.audio) == 9
    assert clip.cut(5).landmarks.shape[0] == 5
    with pytest.raises(DicetalkError, match="c has 5 frames, the protocol compares 6"):
        clip.cut(6)


def test_similarity_of_points_by_least_squares() -> None:
    source = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    turned = source @ np.array([[0.0, 1.0], [-1.0, 0.0]]) * 3 + [5, 7]  # a quarter turn, three times as large
    assert similarity(source, turned) == pytest.approx(np.array([[0, -3, 5], [3, 0, 7]]))
    target = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    a, b = source @ [1, 1j], target @ [1, 1j]
    factor, shift = np.linalg.lstsq(np.stack([a, np.ones(3)], 1), b, rcond=None)[0]
    found = similarity(source, target)
    assert found == pytest.approx(
        np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])
    )


def test_published_crops_use_the_points_of_the_68() -> None:
    points = MEDIAPIPE_TO_68.tolist()
    # ArcFace: eyes, nose tip, mouth corners; dlib: corners of left and right eye, base of the nose.
    eyes = [(points[36], points[39]), (points[42], points[45])]
    assert ARCFACE_POINTS == [*eyes, (1,), (points[48],), (points[54],)]
    assert DLIB_POINTS == [(points[i],) for i in (45, 42, 36, 39, 33)]


def test_pixels_are_compared_over_the_whole_clip() -> None:
    stride = 2
    real = np.full((5, 32, 32, 3), 100, np.uint8)
    shown = real.copy()
    shown[1], shown[2], shown[4] = 0, 110, 120  # of frames 0, 2 and 4 the errors are 0, 10 and 20
    seen = []

    def perceptual(a: torch.Tensor, b: torch.Tensor) -> float:
        seen.append((a, b))
        return float(len(seen))

    found = compare_pixels(shown, np.concatenate([real, real]), stride, perceptual)
    assert found["psnr"] == pytest.approx(10 * math.log10(255**2 / ((0 + 100 + 400) / 3)))
    # Of flat frames SSIM is the term of luminance, (2 a b + c) / (a^2 + b^2 + c) with c = (0.01 * 255)^2.
    c = 2.55**2
    terms = [(2 * 100 * b + c) / (100**2 + b**2 + c) for b in (100, 110, 120)]
    assert found["ssim"] == pytest.approx(sum(terms) / 3, abs=1e-3)
    assert found["lpips"] == pytest.approx(2.0) and len(seen) == 3
    assert seen[1][0].shape == (1, 3, 32, 32)
    assert seen[1][0].mean().item() == pytest.approx(110 / 127.5 - 1, rel=1e-4)
    assert seen[1][1].mean().item() == pytest.approx(100 / 127.5 - 1, rel=1e-4)
    dark = compare_pixels(np.full_like(real, 3), np.zeros_like(real), stride)
    assert dark["ssim"] == pytest.approx(c / (9 + c), abs=3e-4)  # 256 for 255 would be 1.9e-3 off
    assert "psnr" not in compare_pixels(real, real, stride)
    larger = np.full((1, 64, 64, 3), 110, np.uint8)
    assert compare_pixels(larger, real, stride)["psnr"] == pytest.approx(10 * math.log10(255**2 / 100))
    with pytest.raises(DicetalkError, match="31 x 32 px are too small"):
        compare_pixels(shown[:, :, :31], real[:, :, :31], stride)
