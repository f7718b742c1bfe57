"""Which frames, tokens, references and labels a batch holds; clips say by their content where it is from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from dicetalk.data.dataset import CLIPS_PER_CLASS, DiffusionBatches, EmbedderBatches
from dicetalk.data.encode import ClipEncoder
from dicetalk.data.expression import expression_features
from dicetalk.data.speech import (
    LogMelSpeech,
    WhisperSpeech,
    audio_windows,
    count_tokens,
    pad_tokens,
    whisper_hidden_states,
    window_indices,
)
from dicetalk.labels import CLASSES, class_index

STRIDE = 5  # of image embeddings


class Clips:
    """Row r, time t: latent and token 100 r + t, image embedding 1000 more, expression -(100 r + t)."""

    def __init__(self, rows: list[tuple[str, str | None, int, int]], short_sound: int = 0) -> None:
        table = pd.DataFrame(rows, columns=["identity", "emotion", "level", "num_frames"])
        table["mask_box"] = [[8, 8, 40, 40]] * len(rows)
        self.table, self.short_sound = table, short_sound

    def __len__(self) -> int:
        return len(self.table)

    def read(self, row: int, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        frames = self.table.at[row, "num_frames"]
        length = {
            "latents": frames,
            "expression": frames,
            "speech": 2 * frames - self.short_sound,
            "image_embeddings": -(-frames // STRIDE),
        }[name]
        times = np.arange(length)[start:stop]
        values = 100.0 * row + times
        if name == "expression":
            return -values[:, None].astype(np.float32)
        if name == "image_embeddings":
            return 1000 + values[:, None]
        return values[:, None, None] if name == "speech" else values[:, None, None, None]


ROWS = [
    ("A", "happy", 3, 12),
    ("A", "sad", 1, 13),
    ("B", "happy", 3, 20),
    ("RD", None, 0, 15),
    ("RD", None, 0, 30),
]


def diffusion(rows: list = ROWS, short_sound: int = 0, **changes) -> DiffusionBatches:
    settings = {
        "num_frames": 4, "frame_stride": 3, "window_tokens": 10, "image_embedding_stride": STRIDE,
        "size_px": 64, "emotional_fraction": 0.5, "other_clip_reference_fraction": 0.0, "seed": 1,
    }  # fmt: skip
    return DiffusionBatches(Clips(rows, short_sound), **(settings | changes))


def test_a_window_holds_every_third_frame_its_sound_and_its_reference() -> None:
    batch = diffusion().load(np.array([2, 3]), np.array([5, 0]), np.array([1, 3]), np.array([2, 1]))
    assert batch.latents.flatten(1).tolist() == [[205, 208, 211, 214], [300, 303, 306, 309]]
    # The second embedded frame is frame 10, the first one frame 5.
    assert batch.reference_latents.flatten().tolist() == [110.0, 305.0]
    assert batch.image_embeddings.flatten().tolist() == [1102.0, 1301.0]
    # Frame 8 hears tokens 16 - 4 to 16 + 5.
    assert batch.audio_windows[0, 1].flatten().tolist() == [*range(212, 222)]
    assert batch.audio_windows[1, 0].flatten().tolist() == [0, 0, 0, 0, 300, 301, 302, 303, 304, 305]
    assert batch.classes.tolist() == [class_index("happy", 3), -1] and batch.rows.tolist() == [2, 3]
    assert batch.face_masks.sum((1, 2, 3)).tolist() == [1600.0, 1600.0]
    # Mouth: 8 + 0.2 * 40 = 16 across for 24 px, 8 + 0.55 * 40 = 30 down for 16.
    mouth = batch.mouth_masks[0, 0]
    assert mouth[30:46, 16:40].all() and mouth.sum() == 24 * 16
    short = diffusion().load(np.array([2]), np.array([5]), np.array([1]), np.array([2]), 2)
    assert short.latents.flatten(1).tolist() == [[205, 208]] and short.audio_windows.shape[1] == 2


def test_sound_that_ends_early_is_followed_by_silence() -> None:
    batch = diffusion(short_sound=3).load(np.array([2]), np.array([10]), np.array([2]), np.array([0]))
    # Frame 19 hears tokens 34 to 43; there are 37.
    assert batch.audio_windows[0, 3].flatten().tolist() == [234, 235, 236, 0, 0, 0, 0, 0, 0, 0]


def drawn(batches: DiffusionBatches, count: int = 3000) -> tuple[np.ndarray, ...]:
    calls = []
    batches.load = lambda *args: calls.append(args)
    batches.draw(0, count)
    return calls[0]


def test_windows_start_anywhere_and_references_lie_anywhere() -> None:
    rows, starts, reference_rows, references, num_frames = drawn(diffusion())
    assert num_frames is None and np.array_equal(rows, reference_rows)
    assert (rows >= 3).mean() == pytest.approx(0.5, abs=0.04)
    for row, frames in enumerate([12, 13, 20, 15, 30]):
        # A window spans 10 frames.
        assert set(starts[rows == row]) == set(range(frames - 9)), row
        assert set(references[rows == row]) == set(range(-(-frames // STRIDE))), row
    assert (rows == 0).sum() == pytest.approx(500, abs=80)


def test_emotional_fraction_and_references_from_other_clips() -> None:
    rows, _, reference_rows, *_ = drawn(diffusion(emotional_fraction=0.8, other_clip_reference_fraction=0.5))
    assert (rows < 3).mean() == pytest.approx(0.8, abs=0.03)
    assert np.array_equal(rows[rows >= 3], reference_rows[rows >= 3])  # no other clip of regular ones
    assert set(reference_rows[rows == 0]) == {0, 1} and set(reference_rows[rows == 2]) == {2}
    # Half of the time any of two clips: a quarter of the time the other one.
    assert (reference_rows[rows == 0] == 1).mean() == pytest.approx(0.25, abs=0.04)


def test_without_regular_clips_all_are_emotional() -> None:
    rows = drawn(diffusion(ROWS[:3], emotional_fraction=0.0))[0]
    assert set(rows) == {0, 1, 2}


def test_a_part_of_a_batch_is_that_part_of_the_whole() -> None:
    batches, calls = diffusion(), []
    batches.load = lambda *args: calls.append(args)
    batches.draw(4, 8)
    batches.draw(4, 8, 2, slice(2, 5))
    whole, part = calls
    assert all(np.array_equal(a[2:5], b) for a, b in zip(whole[:4], part[:4], strict=True)) and part[4] == 2


def embedder_rows(people: int = 6) -> list:
    return [(f"M{i}", *pair, 10 + i) for i in range(people) for pair in CLASSES]


def test_excerpts_have_their_own_tokens_and_labels() -> None:
    batches = EmbedderBatches(Clips(embedder_rows()), 4, 0)
    batch = batches.load(np.array([23]), np.array([5]))  # the second person's second class
    assert batch.speech.flatten().tolist() == [*range(2310, 2318)]
    assert batch.expression.flatten().tolist() == [-2305, -2306, -2307, -2308]
    assert (batch.classes.item(), batch.identities.item()) == (1, 1)
    short = EmbedderBatches(Clips(embedder_rows(), short_sound=3), 4, 0).load(np.array([0]), np.array([6]))
    assert short.speech.flatten().tolist() == [12, 13, 14, 15, 16, 0, 0, 0]


def test_embedder_batches_take_four_people_of_every_class_in_turn() -> None:
    batches, calls = EmbedderBatches(Clips(embedder_rows()), 4, 0), []
    batches.load = lambda rows, starts: calls.append((rows, starts))
    for step in range(40):
        batches.draw(step, 22 * CLIPS_PER_CLASS)
    assert CLIPS_PER_CLASS == 4
    orders = set()
    for rows, _ in calls:
        classes, people = rows % 22, rows // 22
        assert np.bincount(classes, minlength=22).tolist() == [4] * 22
        assert all(len(set(people[classes == c])) == 4 for c in range(22))
        orders.add(tuple(classes[::4]))
    assert len(orders) == 40  # classes in random order
    rows, starts = (np.concatenate(values) for values in zip(*calls, strict=True))
    assert all(set(starts[rows // 22 == i]) == set(range(10 + i - 4 + 1)) for i in range(6))
    calls.clear()
    batches.draw(3, 10)
    batches.draw(3, 10, slice(2, 5))
    assert np.array_equal(calls[0][0][2:5], calls[1][0]) and np.array_equal(calls[0][1][2:5], calls[1][1])


def test_one_person_may_appear_again_where_there_are_few() -> None:
    rows = [("A", "sad", 1, 10), ("A", "sad", 1, 10), ("B", "sad", 1, 10)]
    batches, calls = EmbedderBatches(Clips(rows), 4, 0), []
    batches.load = lambda rows, starts: calls.append(rows)
    firsts = set()
    for step in range(20):
        batches.draw(step, 3)
        assert sorted(calls[-1]) == [0, 1, 2]
        assert 2 in calls[-1][:2]  # another person comes before the same one again
        firsts.add(calls[-1][0])
    assert firsts == {0, 1, 2}


# --- speech


@pytest.mark.parametrize(("samples", "tokens"), [(1280, 4), (1919, 4), (1920, 6), (16000, 50)])
def test_two_tokens_for_each_whole_frame(samples: int, tokens: int) -> None:
    assert count_tokens(np.zeros(samples)) == tokens


def test_windows_of_other_sizes_keep_two_fifths_before() -> None:
    tokens = np.arange(1.0, 9.0)[:, None, None]
    assert pad_tokens(tokens, 5)[:, 0, 0].tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0]
    assert window_indices(np.array([0, 3]), 5).tolist() == [[0, 1, 2, 3, 4], [6, 7, 8, 9, 10]]
    windows = audio_windows(tokens, 4, frame_stride=1, window_tokens=5)[..., 0, 0]
    assert windows.tolist() == [[0, 0, 1, 2, 3], [1, 2, 3, 4, 5], [3, 4, 5, 6, 7], [5, 6, 7, 8, 0]]


def test_log_mel_bands_of_a_tone() -> None:
    time = np.arange(16000) / 16000
    features = LogMelSpeech(40).encode((0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32))
    # Slaney's mel: linear up to 1000 Hz (15 mel), then logarithmic: 8000 Hz are 15 + 27 ln 8 / ln 6.4, 45.2.
    # 40 filters have their centres 45.2 / 41 apart: 1000 Hz lie between the 13th and the 14th.
    assert set(features[10:-10, 0].argmax(1)) <= {12, 13}
    # A token is 20 ms: a click at 0.5 s is loudest in token 25.
    click = np.zeros(16000, np.float32)
    click[8000] = 1.0
    assert LogMelSpeech(40).encode(click)[:, 0].mean(1).argmax() == 25


def test_whisper_states_are_layers_of_chunks_in_a_row() -> None:
    class Encoder:
        parameter = torch.zeros(())

        def parameters(self):
            return iter([self.parameter])

        def __call__(self, inputs: torch.Tensor, output_hidden_states: bool) -> SimpleNamespace:
            assert output_hidden_states and inputs.shape == (1, 2, 3)
            first = inputs[:, :1].movedim(1, 2)
            return SimpleNamespace(hidden_states=(first, 10 * first))

    mels = [np.arange(6.0).reshape(2, 3), 100 + np.arange(6.0).reshape(2, 3)]
    states = whisper_hidden_states(Encoder(), mels)
    assert states.shape == (6, 2, 1) and states.dtype == np.float32
    assert states[:, :, 0].tolist() == [[0, 0], [1, 10], [2, 20], [100, 1000], [101, 1010], [102, 1020]]


def test_a_whisper_has_an_output_more_than_layers(tmp_path: Path) -> None:
    sizes = {"d_model": 8, "encoder_attention_heads": 2, "encoder_ffn_dim": 8, "encoder_layers": 3}
    sizes |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 8, "vocab_size": 16}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    WhisperModel(WhisperConfig(**sizes, **tokens)).save_pretrained(tmp_path)
    WhisperFeatureExtractor().save_pretrained(tmp_path)
    speech = WhisperSpeech(tmp_path)
    assert (speech.num_layers, speech.channels) == (4, 8)
    assert speech.encode(np.zeros(16_000, np.float32)).shape == (50, 4, 8)


# --- encoding


def test_clips_are_encoded_in_batches_of_frames() -> None:
    sizes = {"latents": [], "images": []}

    class Vae:
        config, device, dtype = SimpleNamespace(scaling_factor=0.5), torch.device("cpu"), torch.float32

        def encode(self, pixels: torch.Tensor) -> SimpleNamespace:
            sizes["latents"].append(len(pixels))
            return SimpleNamespace(
                latent_dist=SimpleNamespace(mode=lambda: pixels.mean((2, 3), keepdim=True))
            )

    class Clip:
        config, device, dtype = SimpleNamespace(image_size=4), torch.device("cpu"), torch.float32

        def __call__(self, pixels: torch.Tensor) -> SimpleNamespace:
            sizes["images"].append(len(pixels))
            return SimpleNamespace(image_embeds=pixels.mean((2, 3)))

    frames = np.zeros((7, 8, 8, 3), np.uint8)
    frames[..., 0] = 255
    frames[..., 1] = (51 * np.arange(7)).clip(0, 255)[:, None, None]
    points = np.random.default_rng(0).uniform(0, 8, (7, 68, 2)).astype(np.float32)
    speech = SimpleNamespace(encode=lambda samples: samples[:4, None, None])
    encoded = ClipEncoder(Vae(), Clip(), speech, 3, 2).encode(frames, np.arange(9.0), points)
    assert sizes == {"latents": [2, 2, 2, 1], "images": [2, 1]}
    # Red is 1, green -1 + 0.4 t, blue -1; all halved.
    assert encoded["latents"][:, 1, 0, 0] == pytest.approx([-0.5, -0.3, -0.1, 0.1, 0.3, 0.5, 0.5], abs=1e-3)
    assert (encoded["latents"][:, 0] == 0.5).all() and (encoded["latents"][:, 2] == -0.5).all()
    # Frames 0, 3 and 6, normalised as CLIP is.
    green = [(value - 0.4578275) / 0.26130258 for value in (0.0, 0.6, 1.0)]
    assert encoded["image_embeddings"][:, 1] == pytest.approx(green, abs=2e-3)
    assert encoded["speech"].flatten().tolist() == [0, 1, 2, 3] and encoded["speech"].dtype == np.float16
    assert np.array_equal(encoded["expression"], expression_features(points))


def test_clip_pixels_are_resized_then_normalised() -> None:
    from dicetalk.models.preprocessing import clip_pixels

    image = Image.fromarray(np.full((6, 9, 3), [255, 0, 51], np.uint8))
    pixels = clip_pixels(image, 4)
    expected = [(1 - 0.48145466) / 0.26862954, -0.4578275 / 0.26130258, (0.2 - 0.40821073) / 0.27577711]
    assert pixels.shape == (3, 4, 4) and pixels.mean((1, 2)).tolist() == pytest.approx(expected, rel=1e-4)
