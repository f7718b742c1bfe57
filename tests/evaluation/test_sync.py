from __future__ import annotations

import numpy as np
import pytest
import torch

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.metrics.sync import shift_distances, sync_score
from dicetalk.evaluation.syncnet import InDomainSyncNet, audio_windows, mouth_region, video_windows


def embeddings(seed: int, windows: int = 40, dim: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((windows, dim))


def test_equal_embeddings_have_distance_zero_at_shift_zero():
    video = embeddings(0)
    score = sync_score(video, video)
    assert score.distance == pytest.approx(0.0)
    assert score.offset_frames == 0
    assert score.confidence > 1.0


@pytest.mark.parametrize("delay", [-4, 3])
def test_offset_tells_how_late_the_sound_is(delay):
    video = embeddings(0, windows=60)
    score = sync_score(video, np.roll(video, delay, axis=0))
    assert score.offset_frames == -delay


def test_equals_the_reference_scoring():
    """The reference pads with zeros and takes means over frames, then median - min."""
    video, audio = embeddings(1), embeddings(2)
    padded = torch.nn.functional.pad(torch.tensor(audio), (0, 0, 15, 15))
    per_frame = [
        torch.nn.functional.pairwise_distance(
            torch.tensor(video)[[i]].repeat(31, 1), padded[i : i + 31], eps=0
        )
        for i in range(len(video))
    ]
    mean = torch.stack(per_frame, 1).mean(1)
    score = sync_score(video, audio)
    np.testing.assert_allclose(shift_distances(video, audio, 15), mean.numpy())
    assert score.distance == pytest.approx(mean.min().item())
    # 31 values, so torch's lower median is the median
    assert score.confidence == pytest.approx((mean.median() - mean.min()).item())
    assert score.offset_frames == 15 - int(mean.argmin())


def test_different_lengths_are_refused():
    with pytest.raises(DicetalkError, match="equally many"):
        sync_score(embeddings(0, windows=10), embeddings(0, windows=9))


def test_windows_of_lips_and_sound_line_up():
    frames = torch.arange(32).float().reshape(32, 1, 1, 1).expand(32, 3, 64, 64)
    windows = video_windows(mouth_region(frames))
    assert windows.shape == (28, 5, 1, 32, 64)
    assert windows[7, :, 0, 0, 0].tolist() == [7, 8, 9, 10, 11]
    sound = np.zeros(32 * 640, dtype=np.float32)
    sound[10 * 640 :] = np.random.default_rng(0).standard_normal(22 * 640) * 0.1  # begins with frame 10
    energy = audio_windows(sound, 32)[:, :, 0]
    assert energy.shape == (28, 20)
    assert (
        energy[5, :18].max() < 0 < energy[6, -4:].min()
    )  # window 6 = frames 6...10; MFCC windows last 25 ms


def test_sound_that_ends_early_is_refused():
    with pytest.raises(DicetalkError, match="shorter than 32 frames"):
        audio_windows(np.zeros(20 * 640, dtype=np.float32), 32)


def test_network_returns_unit_vectors():
    network = InDomainSyncNet(embedding_dim=8)
    video = network.embed_video(torch.randn(3, 5, 1, 32, 64))
    audio = network.embed_audio(torch.randn(3, 20, 13))
    assert video.shape == audio.shape == (3, 8)
    torch.testing.assert_close(video.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(audio.norm(dim=1), torch.ones(3))
