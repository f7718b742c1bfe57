"""What metric networks learn and how they are validated, with networks whose answers are known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dicetalk.evaluation.clips import Clip
from dicetalk.labels import EMOTIONS, emotion_index
from dicetalk.training import evaluator_objectives as objectives
from dicetalk.training import evaluators
from dicetalk.training.evaluator_objectives import (
    EmotionObjective,
    FrameClassification,
    IdentityObjective,
    SecondEmotionObjective,
    SyncObjective,
)


def clip(
    value: int, emotion: str = "happy", level: int = 3, identity: str = "A", num_frames: int = 6
) -> Clip:
    """A clip of `value`; its left column is white, and each frame's first pixel says which it is."""
    frames = np.full((num_frames, 64, 64, 3), value, np.uint8)
    frames[:, :, 0] = 255
    frames[:, 0, 1] = np.arange(num_frames)[:, None]
    return Clip(f"{identity}-{emotion}-{level}", identity, emotion, level, frames, np.zeros(0, np.float32))


class Brightness(nn.Module):
    """Logits `(frames, 8)`: ln 3 for the class that the brightness of a frame says, 0 for the others."""

    def __init__(self, strength: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.given, self.strength = [], strength

    def forward(self, frames: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        self.given.append(frames)
        shown = ((frames[:, 0, 5, 5] + 1) * 127.5 / 20).round().long()
        logits = math.log(3.0) * nn.functional.one_hot(shown, 8).float()
        return logits if self.strength is None else (logits, torch.full((len(frames),), self.strength))


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No augmentation, but its tint is kept."""
    tints: list[float] = []
    monkeypatch.setattr(objectives, "augment", lambda frames, tint=0.0: tints.append(tint) or frames)
    return tints


def by_class(wrong: tuple[str, ...] = ()) -> list[Clip]:
    """One clip per emotion, as bright as its class, or one class further where it is to be mistaken."""
    return [
        clip(20 * ((emotion_index(e) + (e in wrong)) % 8), e, 1 if e == "neutral" else 3) for e in EMOTIONS
    ]


# Probability 3 / 10 for the class that is named, 1 / 10 for each other one; labels are smoothed over all 8.
def smoothed(is_named: bool, smoothing: float = 0.05) -> float:
    target = [smoothing / 8] * 8
    target[0 if is_named else 1] += 1 - smoothing
    return -sum(t * math.log(p) for t, p in zip(target, [0.3] + [0.1] * 7, strict=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.05])
def test_frames_are_drawn_from_classes_equally_and_half_of_them_flipped(
    plain: list, smoothing: float
) -> None:
    common, rare = [clip(0)] * 9, [clip(20)]
    objective = FrameClassification("x", Brightness(), [common, rare], 3, 0.2, smoothing)
    torch.manual_seed(0)
    frames, expected, clips = objective.draw(1, 600)
    assert frames.shape == (600, 3, 64, 64) and plain == [0.2]
    assert expected.float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert [c.frames[0, 5, 5, 0] // 20 for c in clips] == expected.tolist()
    flipped = frames[:, 0, 9, -1] == 1.0
    assert (flipped ^ (frames[:, 0, 9, 0] == 1.0)).all()
    assert flipped.float().mean().item() == pytest.approx(0.5, abs=0.06)
    first = torch.where(flipped, frames[:, 0, 0, -2], frames[:, 0, 0, 1])
    assert len(first.unique()) == 6  # every frame of a clip
    loss, logged = objective.loss(1, 50)
    assert logged == {"accuracy": 1.0} and loss.item() == pytest.approx(smoothed(True, smoothing), rel=1e-5)
    (group,) = objective.parameter_groups(0.5)
    assert group["lr"] == 0.5 and [p.shape for p in group["params"]] == [()]


def test_batches_differ_between_steps_and_seeds() -> None:
    clips = [[clip(v)] for v in range(100)]

    def drawn(seed: int, step: int) -> list[int]:
        return FrameClassification("x", Brightness(), clips, seed).draw(step, 20)[1].tolist()

    assert drawn(1, 2) == drawn(1, 2) and drawn(1, 2) != drawn(2, 2) and drawn(1, 2) != drawn(1, 3)


def test_emotion_accuracy_is_of_videos_and_per_level(plain: list) -> None:
    tests = by_class(wrong=("happy", "neutral")) + [clip(0, "angry", 2, "B")]
    objective = EmotionObjective(by_class(), tests, 0)
    assert (objective.tint, objective.label_smoothing) == (0.3, 0.05)
    assert [c[0].emotion for c in objective.classes] == list(EMOTIONS)
    objective.network = Brightness()
    # 9 clips: neutral, the only one of level 1, and happy are mistaken.
    assert objective.validate(0) == {
        "accuracy": pytest.approx(7 / 9),
        "accuracy_level_1": 0.0,
        "accuracy_level_2": 1.0,
        "accuracy_level_3": pytest.approx(6 / 7),
    }
    assert [len(frames) for frames in objective.network.given] == [2] * 9  # frames 0 and 4 of 6
    shown = objective.network.given[0][:, 0, 0, 1]
    assert ((shown + 1) * 127.5).round().tolist() == [0, 4]


def test_a_video_shows_what_most_of_its_frames_say() -> None:
    objective = EmotionObjective(by_class(), by_class(), 0)
    logits = torch.zeros(3, 8)
    logits[0, 4], logits[1:, 6] = 1.0, 2.0
    objective.logits = lambda frames: logits
    assert not objective._recognises(clip(0), "happy") and objective._recognises(clip(0), "sad")


def test_the_second_network_learns_strength_beside_the_emotion() -> None:
    objective = SecondEmotionObjective(by_class(), by_class(), 5)
    objective.network = Brightness(strength=1.0)
    loss, logged = objective.loss(0, 400)
    neutral = (objective.draw(0, 400)[1] == emotion_index("neutral")).float().mean().item()
    assert neutral == pytest.approx(1 / 8, abs=0.05)
    # Strength 1 is 1 too much for neutral and 2 too little for level 3.
    squared = neutral * 1.0 + (1 - neutral) * 4.0
    assert logged == {"accuracy": 1.0, "strength_squared_error": pytest.approx(squared, rel=1e-5)}
    assert loss.item() == pytest.approx(smoothed(True) + 0.5 * squared, rel=1e-5)
    metrics = objective.validate(0)
    assert metrics["strength_error"] == pytest.approx((1.0 + 7 * 2.0) / 8) and metrics["accuracy"] == 1.0


def test_identity_classes_are_people_and_cosines_are_between_clips(plain: list) -> None:
    train = [clip(0, identity="B"), clip(20, identity="A"), clip(40, identity="A")]
    tests = [clip(v, identity=name) for v, name in ((0, "C"), (20, "C"), (40, "D"), (60, "D"))]
    for each in tests:
        each.frames[1:] = 130  # the first frame alone is compared
    objective = IdentityObjective(train, tests, 0)
    assert [[c.identity for c in people] for people in objective.classes] == [["A", "A"], ["B"]]
    assert objective.tint == 0.1 and objective.label_smoothing == 0.0
    angles = torch.tensor([0.0, 0.6, 1.6, 1.9])

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def embed(self, frames: Tensor) -> Tensor:
            shown = ((frames[:, 0, 5, 5] + 1) * 127.5 / 20).round().long()
            return torch.stack([angles[shown].cos(), angles[shown].sin()], 1)

    objective.network = Network()
    metrics = objective.validate(0)
    assert metrics["cosine_same"] == pytest.approx((math.cos(0.6) + math.cos(0.3)) / 2, rel=1e-5)
    others = [math.cos(x) for x in (1.6, 1.9, 1.0, 1.3)]
    assert metrics["cosine_different"] == pytest.approx(sum(others) / 4, rel=1e-5)
    assert metrics["auc"] == 1.0
    angles[1] = 1.55  # cosines of the same: 0.02 and 0.96; of others -0.03, -0.32, 1.00 and 0.94
    assert objective.validate(0)["auc"] == pytest.approx((2 + 3) / 8)
    objective.test_clips = tests[:1]
    assert objective.validate(0) == {}
    objective.test_clips = tests[:2]
    assert objective.validate(0) == {}


# --- lip sync

WINDOWS = 12  # of a clip with 16 frames


def sync_clip(number: int) -> Clip:
    """A clip whose frame i is of brightness `10 * number + i` and whose sound says nothing."""
    frames = np.zeros((WINDOWS + 4, 64, 64, 3), np.uint8)
    frames += (30 * number + np.arange(WINDOWS + 4, dtype=np.uint8))[:, None, None, None]
    rng = np.random.default_rng(number)
    audio = rng.normal(size=640 * len(frames)).astype(np.float32)
    return Clip(f"c{number}", f"p{number}", "happy", 1, frames, audio)


class SyncNet(nn.Module):
    """Embeds a window of lips by where it is, and sound by what `sounds` says it is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.lips, self.heard = [], []

    def embed_video(self, windows: Tensor) -> Tensor:
        codes = ((windows[:, 0].mean((1, 2, 3)) + 1) * 127.5).round()
        steps = ((windows[:, :, 0, 0, 0] + 1) * 127.5).round().diff(dim=1)
        assert (steps == 1).all() and windows.shape[1:] == (5, 1, 32, 64)  # five frames in a row
        self.lips.append(codes)
        return self.embed(codes)

    def embed_audio(self, windows: Tensor) -> Tensor:
        codes = windows.flatten(1)[:, 0]
        self.heard.append(codes)
        return self.embed(codes)

    @staticmethod
    def embed(codes: Tensor) -> Tensor:
        angles = codes / 20
        return torch.stack([angles.cos(), angles.sin()], dim=1)


def sync_objective(monkeypatch: pytest.MonkeyPatch, count: int) -> SyncObjective:
    objective = SyncObjective([sync_clip(n) for n in range(count)], [sync_clip(n) for n in range(3)], 1)
    objective.network = SyncNet()
    # Sound says the same number as the lips it belongs to.
    objective.audio = [(30 * n + torch.arange(float(WINDOWS)))[:, None].expand(-1, 2) for n in range(count)]
    monkeypatch.setattr(
        objectives, "audio_windows", lambda audio, n: objective.audio[numbers[audio.tobytes()]]
    )
    numbers = {sync_clip(n).audio.tobytes(): n for n in range(3)}
    return objective


def test_sync_contrasts_windows_of_lips_with_windows_of_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = sync_objective(monkeypatch, 8)
    loss, logged = objective.loss(0, 24)  # three windows of each of eight clips
    lips, heard = objective.network.lips[-1], objective.network.heard[-1]
    assert torch.equal(lips, heard) and len(set(lips.tolist())) == 24
    clips, windows = (lips // 30).long(), lips % 30
    assert clips.bincount().tolist() == [3] * 8
    for number in range(8):
        own = windows[clips == number]
        assert own.max() < WINDOWS
        assert all(abs(a - b) >= 2 for i, a in enumerate(own.tolist()) for b in own[i + 1 :].tolist())
    cosines = torch.cos((lips[:, None] - heard) / 20).double() / 0.1
    expected = -(cosines.log_softmax(1).diagonal().mean() + cosines.log_softmax(0).diagonal().mean()) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert logged == {"accuracy": 1.0}


def test_both_directions_of_sync_count_equally(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = sync_objective(monkeypatch, 2)
    monkeypatch.setattr(
        objective.network, "embed_audio", lambda windows: torch.tensor([[1.0, 0], [0, 1]])[:2].repeat(2, 1)
    )
    monkeypatch.setattr(
        objective.network, "embed_video", lambda windows: torch.tensor([[0.6, 0.8]]).expand(4, 2)
    )
    loss, logged = objective.loss(0, 4)
    one, other = math.exp(6), math.exp(8)  # cosines of 0.6 and 0.8 at a temperature of 0.1, twice each
    rows = -(2 * math.log(one / (2 * one + 2 * other)) + 2 * math.log(other / (2 * one + 2 * other))) / 4
    assert loss.item() == pytest.approx((rows + math.log(4)) / 2, rel=1e-4)


def test_few_windows_still_come_in_pairs_of_one_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = sync_objective(monkeypatch, 8)
    firsts = set()
    for step in range(40):
        objective.loss(step, 6)
        lips = objective.network.lips[-1]
        clips = (lips // 30).long().bincount()
        assert len(lips) == 6 and sorted(clips[clips > 0].tolist()) == [2, 2, 2]
        firsts |= set((lips % 30).tolist())
    assert firsts == set(range(WINDOWS))  # even and odd windows, up to the last one


def test_sync_validation_swaps_the_sound_of_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = sync_objective(monkeypatch, 3)
    metrics = objective.validate(0)
    assert metrics["sync_d"] == pytest.approx(0.0, abs=1e-6) and metrics["offset_within_1_frame"] == 1.0
    assert metrics["sync_c"] > 0
    heard = []
    monkeypatch.setattr(
        objectives,
        "sync_score",
        lambda video, audio: (
            heard.append((video[0], audio[0]))
            or SimpleNamespace(distance=1.0, confidence=2.0, offset_frames=len(heard) - 2)
        ),
    )
    metrics = objective.validate(0)

    def code(vector: np.ndarray) -> int:
        return round(math.atan2(vector[1], vector[0]) % (2 * math.pi) * 20)

    assert [(code(v), code(a)) for v, a in heard] == [(0, 0), (30, 30), (60, 60), (0, 30), (30, 60), (60, 0)]
    # Offsets of -1, 0 and 1, then of 2, 3 and 4.
    assert metrics["offset_within_1_frame"] == 1.0 and metrics["wrong_audio_offset_within_1_frame"] == 0.0
    assert (metrics["sync_d"], metrics["sync_c"]) == (1.0, 2.0)


def test_short_clips_have_no_negatives_and_are_left_out() -> None:
    short, long = sync_clip(0), sync_clip(1)
    short = Clip("s", "s", "happy", 1, short.frames[:5], short.audio[: 5 * 640])
    just = Clip("j", "j", "happy", 1, long.frames[:6], long.audio[: 6 * 640])
    objective = SyncObjective([short, long, just], [short, long], 0)
    assert [c.clip_id for c in objective.train_clips] == ["c1", "j"]
    assert [c.clip_id for c in objective.test_clips] == ["c1"]
    assert [len(windows) for windows in objective.audio] == [12, 2]


def test_sound_is_standardised_by_the_training_clips() -> None:
    from dicetalk.evaluation.mfcc import mfcc

    clips = [sync_clip(1), sync_clip(2)]
    network = SyncObjective(clips, clips, 0).network
    coefficients = np.concatenate([mfcc(c.audio) for c in clips])
    assert network.mfcc_mean.numpy() == pytest.approx(coefficients.mean(0), rel=1e-4)
    assert network.mfcc_std.numpy() == pytest.approx(coefficients.std(0), rel=1e-4)


def test_curves_and_samples_of_a_network_carry_its_name() -> None:
    logged = []
    tracker = SimpleNamespace(
        log_metrics=lambda metrics, step: logged.append((metrics, step)),
        log_artifact=lambda path, folder: logged.append((path, folder)),
    )
    named = evaluators._NamedTracker(tracker, "sync")
    named.log_metrics({"loss": 1.0}, 7)
    named.log_artifact("a.mp4", "samples")
    assert logged == [({"sync/loss": 1.0}, 7), ("a.mp4", "sync/samples")]
