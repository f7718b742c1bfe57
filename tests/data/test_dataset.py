"""Batches: shapes, labels, mixing, balance, and that they depend on seed and step alone."""

from __future__ import annotations

from pathlib import Path

import fake_corpus
import numpy as np
import pandas as pd
import pytest
import torch

from dicetalk.data.dataset import DiffusionBatches, EmbedderBatches, EncodedClips, face_masks
from dicetalk.data.index_table import make_table
from dicetalk.data.speech import audio_windows
from dicetalk.errors import DicetalkError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("encoded")
    return [fake_corpus.write_encoded_mead(root / "mead"), fake_corpus.write_encoded_hdtf(root / "hdtf")]


def diffusion_batches(folders: list[Path], **changes) -> DiffusionBatches:
    settings = dict(
        num_frames=4, frame_stride=2, window_tokens=10, image_embedding_stride=fake_corpus.STRIDE,
        size_px=fake_corpus.SIZE_PX, emotional_fraction=0.5,
        other_clip_reference_fraction=0.0, seed=1,
    )  # fmt: skip
    clips = EncodedClips(folders, "train", min_frames=8)
    return DiffusionBatches(clips, **(settings | changes))


def test_splits_do_not_share_identities(folders: list[Path]):
    train, test = EncodedClips(folders, "train"), EncodedClips(folders, "test")
    assert not set(train.table["identity"]) & set(test.table["identity"])
    assert len(train) + len(test) == 6 * 22 + 4


def test_too_short_clips_are_refused_by_name(folders: list[Path]):
    with pytest.raises(DicetalkError, match="no train clip has 100 frames"):
        EncodedClips(folders, "train", min_frames=100)


def test_embedder_batches_hold_each_class_with_several_identities(folders: list[Path]):
    batches = EmbedderBatches(EncodedClips(folders[:1], "train"), clip_frames=16, seed=3)
    batch = batches.draw(0, 32)
    assert batch.speech.shape == (32, 32, 1, 6) and batch.expression.shape == (32, 16, 136)
    classes, counts = batch.classes.unique(return_counts=True)
    assert len(classes) == 8 and (counts == 4).all()
    for value in classes:
        assert len(batch.identities[batch.classes == value].unique()) == 4


def test_batches_depend_on_seed_and_step_alone(folders: list[Path]):
    first, again = diffusion_batches(folders), diffusion_batches(folders)
    again.draw(5, 6)
    for name, values in vars(first.draw(2, 6)).items():
        assert torch.equal(values, getattr(again.draw(2, 6), name)), name
    assert not torch.equal(first.draw(2, 6).latents, first.draw(3, 6).latents)


def test_diffusion_batch_is_cut_from_its_clip(folders: list[Path]):
    batches = diffusion_batches(folders)
    batch = batches.load(np.array([7, 0]), np.array([3, 0]), np.array([7, 0]), np.array([1, 2]))
    latents = batches.clips.read(7, "latents").astype(np.float32)
    assert np.array_equal(batch.latents[0], latents[[3, 5, 7, 9]])
    assert np.array_equal(batch.reference_latents[0], latents[5])
    speech = batches.clips.read(7, "speech").astype(np.float32)
    assert np.array_equal(batch.audio_windows[0, 1], audio_windows(speech, 6, frame_stride=1)[5])
    assert batch.face_masks.shape == (2, 1, 64, 64)


def test_emotional_and_regular_clips_are_mixed_one_to_one(folders: list[Path]):
    batches = diffusion_batches(folders)
    classes = torch.cat([batches.draw(step, 50).classes for step in range(6)])
    assert 0.4 < (classes < 0).float().mean() < 0.6
    assert classes.max() == 21
    only_emotional = diffusion_batches(folders[:1])
    assert (only_emotional.draw(0, 50).classes >= 0).all()


def test_face_masks_fill_their_boxes():
    masks = face_masks(np.array([[1, 2, 3, 4], [0, 0, 8, 8]]), 8)
    assert masks[0].sum() == 12 and masks[0, 0, 2:6, 1:4].all()
    assert masks[1].all()


def test_references_from_other_clips_show_the_same_identity_but_not_the_same_clip(folders: list[Path]):
    own = diffusion_batches(folders, emotional_fraction=1.0)
    other = diffusion_batches(folders, emotional_fraction=1.0, other_clip_reference_fraction=1.0)
    chosen = []
    original = other.load
    other.load = lambda rows, starts, reference_rows, references, num_frames: (
        chosen.append((rows, reference_rows)) or original(rows, starts, reference_rows, references)
    )
    first, second = own.draw(0, 16), other.draw(0, 16)
    rows, reference_rows = chosen[0]
    identities = other.clips.table["identity"].to_numpy(str)
    assert (identities[rows] == identities[reference_rows]).all()
    assert (rows != reference_rows).mean() > 0.5
    assert torch.equal(first.latents, second.latents)


def index_rows(*clips: tuple[str, str, str | None, str]) -> pd.DataFrame:
    rows = [
        {
            "clip_id": clip,
            "identity": person,
            "emotion": emotion,
            "level": 1 if emotion else 0,
            "split": split,
        }
        for clip, person, emotion, split in clips
    ]
    return make_table(rows)


def test_emotional_corpora_are_read_together(tmp_path: Path):
    first = fake_corpus.write_encoded(tmp_path / "b", index_rows(("x", "ann", "sad", "train")))
    second = fake_corpus.write_encoded(tmp_path / "a", index_rows(("y", "bob", "happy", "train")))
    clips = EncodedClips([first, second], "train")
    assert clips.table[["set", "clip_id", "emotion"]].to_numpy().tolist() == [
        ["a", "y", "happy"],
        ["b", "x", "sad"],
    ]
    means = clips.read(0, "speech").mean(), clips.read(1, "speech").mean()
    assert means[0] != means[1]


def test_emotional_corpora_do_not_share_the_name_of_a_clip(tmp_path: Path):
    first = fake_corpus.write_encoded(tmp_path / "a", index_rows(("x", "ann", "sad", "train")))
    second = fake_corpus.write_encoded(tmp_path / "b", index_rows(("x", "bob", "sad", "train")))
    with pytest.raises(DicetalkError, match="a and b both have a clip x"):
        EncodedClips([first, second])


def test_nobody_is_held_out_in_one_corpus_only(tmp_path: Path):
    first = fake_corpus.write_encoded(tmp_path / "a", index_rows(("x", "ann", "sad", "train")))
    second = fake_corpus.write_encoded(tmp_path / "b", index_rows(("y", "ann", "sad", "test")))
    with pytest.raises(DicetalkError, match="ann is held out in one corpus and trained on in another"):
        EncodedClips([first, second], "train")


def test_regular_corpora_may_share_names(tmp_path: Path):
    first = fake_corpus.write_encoded(tmp_path / "a", index_rows(("x", "ann", None, "train")))
    second = fake_corpus.write_encoded(tmp_path / "b", index_rows(("x", "ann", None, "test")))
    assert len(EncodedClips([first, second])) == 2
