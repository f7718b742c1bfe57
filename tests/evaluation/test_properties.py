"""What every sync score and every Fréchet distance must do, on clips drawn as the demo's are."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import stand_ins
import torch
from changes import changed

from dicetalk.config import load_params
from dicetalk.evaluation.clips import Clip
from dicetalk.evaluation.metrics.frechet import Moments, frechet_distance
from dicetalk.evaluation.metrics.sync import SyncScore, sync_score
from dicetalk.evaluation.networks import IdentityNet, normalise, to_input
from dicetalk.evaluation.published.inception import FidInception
from dicetalk.evaluation.published.readers import in_batches, reference_resize
from dicetalk.evaluation.syncnet import InDomainSyncNet, audio_windows, mouth_region, video_windows
from dicetalk.synthetic.clips import face_view, training_takes
from dicetalk.synthetic.identity import sample_identity
from dicetalk.synthetic.performance import perform
from dicetalk.synthetic.sentences import SENTENCES
from dicetalk.training.evaluator_objectives import SyncObjective
from dicetalk.training.loop import train

FPS, SAMPLES_PER_FRAME = 25.0, 640


def faces(count: int, seed: int) -> np.ndarray:
    """Return one frame each of `count` people."""
    rngs = (np.random.default_rng([seed, i]) for i in range(count))
    return np.concatenate([training_takes(rng, 1, 1, FPS, 64)[0] for rng in rngs])


def noisy(images: np.ndarray, std: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, std, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(image, (0, 0), sigma) for image in images])


def small_features() -> Callable[[np.ndarray], np.ndarray]:
    torch.manual_seed(0)
    network = IdentityNet(4).eval()
    return torch.inference_mode()(lambda images: network.trunk(to_input(images)).numpy())


def inception_features() -> Callable[[np.ndarray], np.ndarray]:
    network = stand_ins.randomise(FidInception())
    return torch.inference_mode()(lambda images: in_batches(lambda x: network(reference_resize(x)), images))


def check_frechet(features: Callable[[np.ndarray], np.ndarray], count: int) -> None:
    images = faces(count, 1)
    clean = Moments.of(features(images))

    def distance(changed: np.ndarray) -> float:
        return frechet_distance(clean, Moments.of(features(changed)))

    others = Moments.of(features(faces(count, 2)))
    scale = np.trace(clean.mean_and_covariance()[1])
    assert distance(images) < 1e-6 * scale
    assert frechet_distance(clean, others) == pytest.approx(frechet_distance(others, clean), rel=1e-6)
    for spoil, steps in ((noisy, (5, 20, 60)), (blurred, (0.7, 1.5, 4))):
        distances = [distance(spoil(images, step)) for step in steps]
        assert 0 < distances[0] < distances[1] < distances[2], spoil.__name__


def test_frechet_distance_of_a_small_network():
    check_frechet(small_features(), 40)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fid_on_the_published_graph():
    check_frechet(inception_features(), 12)


def speaking(number: int, seconds: float = 2.4) -> Clip:
    """Return a take as the demo draws and speaks it, cropped around the face."""
    rng = np.random.default_rng([7, number])
    identity = sample_identity(rng)
    text = SENTENCES[number % len(SENTENCES)]
    emotion = ("neutral", "happy", "angry", "surprised")[number % 4]
    level = 1 if emotion == "neutral" else 3
    take = perform(identity, emotion, level, text, seconds, FPS, rng)
    frames = np.stack(list(take.frames(face_view(identity, take.states, 64, 0.35))))
    return Clip(f"clip{number}", f"person{number}", emotion, level, frames, take.samples)


@torch.inference_mode()
def score(network: InDomainSyncNet, clip: Clip, delay_frames: int = 0) -> SyncScore:
    """Score a clip whose sound comes `delay_frames` later (earlier when negative)."""
    samples = np.roll(clip.audio, delay_frames * SAMPLES_PER_FRAME)
    if delay_frames > 0:
        samples[: delay_frames * SAMPLES_PER_FRAME] = 0
    elif delay_frames < 0:
        samples[delay_frames * SAMPLES_PER_FRAME :] = 0
    lips = network.embed_video(video_windows(mouth_region(normalise(torch.from_numpy(clip.frames)))))
    return sync_score(lips.numpy(), network.embed_audio(audio_windows(samples, len(clip.frames))).numpy())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_delayed_sound_moves_the_measured_offset_by_as_much(repository, tmp_path):
    """The demo's sync network and recipe, 200 steps on 48 people; judged on 8 it never saw."""
    params = load_params(repository / "profiles/demo.yaml")
    quick = {"num_steps": 200, "validate_every_steps": 200, "threads": 1}
    recipe = changed(params.evaluators.sync, params.compute.evaluators, **quick)
    objective = SyncObjective([speaking(i) for i in range(48)], [speaking(i) for i in range(48, 50)], 0)
    train(objective, *recipe, tmp_path, None, "sync")
    clips = [speaking(i) for i in range(50, 58)]
    network = objective.network.eval()
    start = np.array([score(network, clip).offset_frames for clip in clips])
    assert np.abs(start).max() <= 1
    for delay in (-6, -3, 2, 5):
        moved = np.array([score(network, clip, delay).offset_frames for clip in clips])
        assert np.median(moved - start) == -delay
        assert (np.abs(moved - start + delay) <= 1).mean() >= 7 / 8
        confident = np.mean([score(network, clip, delay).confidence for clip in clips])
        assert confident > 0.1
