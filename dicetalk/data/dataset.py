"""Encoded clips and the batches that training draws from them.

A batch depends on `(seed, step)` alone, so any step can be redrawn after a restart. Shards are
memory-mapped and only the frames a batch needs are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open

from dicetalk.data.speech import TOKENS_PER_TICK, pad_tokens, window_indices
from dicetalk.errors import DicetalkError
from dicetalk.labels import class_index

CLIPS_PER_CLASS = 4  # clips of one class in an embedder batch, all of different identities where possible


class EncodedClips:
    """The clips of `data/encoded/<set>/`, optionally of one split.

    Attributes:
        table: one row per clip: the columns of `kept.parquet`, `set` and `shard`.
    """

    def __init__(self, folders: Sequence[Path], split: str | None = None, min_frames: int = 1):
        tables = [_read_table(Path(folder)) for folder in folders]
        table = pd.concat(tables, ignore_index=True)
        chosen = table["num_frames"] >= min_frames
        if split is not None:
            chosen &= table["split"] == split
        if len(folders) > 1:
            _check_unique(table)
        self.table = table[chosen].sort_values(["set", "clip_id"]).reset_index(drop=True)
        if self.table.empty:
            where = ", ".join(str(folder) for folder in folders)
            raise DicetalkError(f"{where}: no {split or 'encoded'} clip has {min_frames} frames or more.")
        self._handles: dict[str, Any] = {}
        # Plain lists: reading a cell of a data frame costs ten times as much as reading the features
        # themselves.
        self._places = list(zip(self.table["shard"], self.table["clip_id"], strict=True))

    def __len__(self) -> int:
        return len(self.table)

    def read(self, row: int, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return rows `[start, stop)` of one feature of the clip at `row` of the table.

        Args:
            row: position in the table.
            name: `latents`, `image_embeddings`, `speech` or `expression`, see `dicetalk.data.encode`.
            start: first time step.
            stop: time step to stop before; None reads to the end.
        """
        shard, clip_id = self._places[row]
        if shard not in self._handles:
            self._handles[shard] = safe_open(shard, framework="numpy")
        values = self._handles[shard].get_slice(f"{clip_id}/{name}")
        return values[start : values.get_shape()[0] if stop is None else stop]


@dataclass(frozen=True)
class EmbedderBatch:
    """Clip excerpts with labels.

    Attributes:
        speech: `(batch, 2 * frames, layers, channels)`.
        expression: `(batch, frames, expression_dim)`.
        classes: class index `(batch,)`, see `dicetalk.labels`.
        identities: identity index `(batch,)`.
    """

    speech: torch.Tensor
    expression: torch.Tensor
    classes: torch.Tensor
    identities: torch.Tensor

    def to(self, device: torch.device) -> EmbedderBatch:
        """Return the batch on `device`."""
        return EmbedderBatch(
            self.speech.to(device),
            self.expression.to(device),
            self.classes.to(device),
            self.identities.to(device),
        )


class EmbedderBatches:
    """Class-balanced batches in which each class appears with several identities.

    Args:
        clips: clips with emotion labels.
        clip_frames: length of an excerpt at 25 fps; it starts at a random frame.
        seed: of all draws.
    """

    def __init__(self, clips: EncodedClips, clip_frames: int, seed: int):
        self.clips, self.clip_frames, self.seed = clips, clip_frames, seed
        table = clips.table
        self.classes = np.array(
            [class_index(e, v) for e, v in zip(table["emotion"], table["level"], strict=True)]
        )
        self.identity_names, self.identities = np.unique(table["identity"].to_numpy(str), return_inverse=True)
        self.num_frames = table["num_frames"].to_numpy(int)
        self._rows = {c: np.flatnonzero(self.classes == c) for c in np.unique(self.classes)}

    def draw(self, step: int, batch_size: int, part: slice = slice(None)) -> EmbedderBatch:
        """Return a part of the batch of `step`; nothing else is read."""
        rng = np.random.default_rng([self.seed, step])
        rows = self._draw_rows(rng, batch_size)
        starts = rng.integers(0, self.num_frames[rows] - self.clip_frames + 1)
        return self.load(rows[part], starts[part])

    def load(self, rows: np.ndarray, starts: np.ndarray) -> EmbedderBatch:
        """Return the excerpts of `rows` that begin at frames `starts`."""
        frames = self.clip_frames
        speech, expression = [], []
        for row, start in zip(rows.tolist(), starts.tolist(), strict=True):
            tokens = self.clips.read(
                row, "speech", TOKENS_PER_TICK * start, TOKENS_PER_TICK * (start + frames)
            )
            missing = TOKENS_PER_TICK * frames - len(tokens)  # sound may end a little before the picture
            speech.append(np.pad(tokens, [(0, missing), (0, 0), (0, 0)]) if missing else tokens)
            expression.append(self.clips.read(row, "expression", start, start + frames))
        return EmbedderBatch(
            torch.from_numpy(np.stack(speech)).float(),
            torch.from_numpy(np.stack(expression)),
            torch.from_numpy(self.classes[rows]),
            torch.from_numpy(self.identities[rows]),
        )

    def _draw_rows(self, rng: np.random.Generator, batch_size: int) -> np.ndarray:
        drawn: list[int] = []
        order: list[int] = []
        while len(drawn) < batch_size:
            if not order:
                order = rng.permutation(list(self._rows)).tolist()
            rows = rng.permutation(self._rows[order.pop()])
            # The first clip of each identity in random order, then the rest: identities differ where
            # possible.
            _, first = np.unique(self.identities[rows], return_index=True)
            distinct = rows[np.sort(first)]
            drawn.extend(np.concatenate([distinct, np.setdiff1d(rows, distinct)])[:CLIPS_PER_CLASS].tolist())
        return np.array(drawn[:batch_size])


@dataclass(frozen=True)
class DiffusionBatch:
    """Video windows with everything that conditions them.

    Attributes:
        latents: scaled VAE latents `(batch, frames, channels, h, w)`.
        reference_latents: of the reference frame `(batch, channels, h, w)`, scaled likewise.
        image_embeddings: of the reference frame `(batch, dim)`.
        face_masks: `(batch, 1, height, width)` in {0, 1}.
        mouth_masks: likewise, see `mouth_boxes`.
        audio_windows: `(batch, frames, window, layers, channels)`.
        rows: position of each clip in the table `(batch,)`.
        classes: class index, -1 for clips without an emotion label `(batch,)`.
    """

    latents: torch.Tensor
    reference_latents: torch.Tensor
    image_embeddings: torch.Tensor
    face_masks: torch.Tensor
    mouth_masks: torch.Tensor
    audio_windows: torch.Tensor
    rows: torch.Tensor
    classes: torch.Tensor


class DiffusionBatches:
    """Windows of emotional and regular clips, mixed in a fixed ratio (paper section 4.1: 1:1).

    Args:
        clips: both sets; clips with an emotion label are the emotional ones.
        num_frames: length of a window at the model's frame rate.
        frame_stride: 25-fps frames per frame of the model.
        window_tokens: speech tokens per frame.
        image_embedding_stride: of the encoding; only every n-th frame can be the reference.
        size_px: side of the crops.
        emotional_fraction: chance that a sample of the batch is emotional.
        other_clip_reference_fraction: chance that an emotional sample's reference image comes from any
            clip of the identity instead of the same clip.
        seed: of all draws.
    """

    def __init__(
        self,
        clips: EncodedClips,
        num_frames: int,
        frame_stride: int,
        window_tokens: int,
        image_embedding_stride: int,
        size_px: int,
        emotional_fraction: float,
        other_clip_reference_fraction: float,
        seed: int,
    ):
        self.clips, self.seed = clips, seed
        self.other_clip_reference_fraction = other_clip_reference_fraction
        self.frames = frame_stride * np.arange(num_frames)
        self.window_tokens = window_tokens
        self.image_embedding_stride = image_embedding_stride
        self.size_px = size_px
        table = clips.table
        labelled = table["emotion"].notna().to_numpy()
        self.emotional, self.regular = np.flatnonzero(labelled), np.flatnonzero(~labelled)
        if not len(self.emotional):
            raise DicetalkError("No clip has an emotion label; add an emotional corpus to `index`.")
        self.emotional_fraction = emotional_fraction if len(self.regular) else 1.0
        self.classes = np.full(len(table), -1)
        for row in self.emotional:
            self.classes[row] = class_index(table.at[row, "emotion"], int(table.at[row, "level"]))
        self.num_frames = table["num_frames"].to_numpy(int)
        self.mask_boxes = np.stack(table["mask_box"].to_numpy()).astype(int)
        identities = table.loc[self.emotional, "identity"].to_numpy(str)
        self._rows_of = {name: self.emotional[identities == name] for name in np.unique(identities)}

    def draw(
        self, step: int, batch_size: int, num_frames: int | None = None, part: slice = slice(None)
    ) -> DiffusionBatch:
        """Return the batch of `step`, with windows of the first `num_frames` frames; all by default.

        Only a `part` of the samples is read and returned.

        The paper does not say which frame is the reference. A frame of the same clip already shows the
        emotion, so a model trained on such frames alone copies it and ignores the emotion prior: most
        references of emotional samples come from any clip of the identity, whatever its emotion.
        """
        rng = np.random.default_rng([self.seed, step])
        emotional = rng.random(batch_size) < self.emotional_fraction
        rows = np.where(emotional, rng.choice(self.emotional, batch_size), 0)
        if not emotional.all():
            rows[~emotional] = rng.choice(self.regular, (~emotional).sum())
        starts = rng.integers(0, self.num_frames[rows] - self.frames[-1])
        reference_rows = rows.copy()
        for sample in np.flatnonzero(
            emotional & (rng.random(batch_size) < self.other_clip_reference_fraction)
        ):
            identity = str(self.clips.table.at[rows[sample], "identity"])
            reference_rows[sample] = rng.choice(self._rows_of[identity])
        references = rng.integers(0, -(-self.num_frames[reference_rows] // self.image_embedding_stride))
        return self.load(rows[part], starts[part], reference_rows[part], references[part], num_frames)

    def load(
        self,
        rows: np.ndarray,
        starts: np.ndarray,
        reference_rows: np.ndarray,
        references: np.ndarray,
        num_frames: int | None = None,
    ) -> DiffusionBatch:
        """Return windows of `rows` from frames `starts`.

        The reference images are the `references`-th embedded frames of `reference_rows`.
        """
        frames = self.frames[:num_frames]
        latents, reference_latents, embeddings, speech = [], [], [], []
        columns = (rows, starts, reference_rows, references)
        for row, start, reference_row, reference in zip(*(c.tolist() for c in columns), strict=True):
            read = self.clips.read
            latents.append(read(row, "latents", start, start + frames[-1] + 1)[frames])
            frame = reference * self.image_embedding_stride
            reference_latents.append(read(reference_row, "latents", frame, frame + 1)[0])
            embeddings.append(read(reference_row, "image_embeddings", reference, reference + 1)[0])
            speech.append(self._windows(row, start + frames))
        return DiffusionBatch(
            torch.from_numpy(np.stack(latents)).float(),
            torch.from_numpy(np.stack(reference_latents)).float(),
            torch.from_numpy(np.stack(embeddings)).float(),
            torch.from_numpy(face_masks(self.mask_boxes[rows], self.size_px)),
            torch.from_numpy(face_masks(mouth_boxes(self.mask_boxes[rows]), self.size_px)),
            torch.from_numpy(np.stack(speech)).float(),
            torch.from_numpy(rows),
            torch.from_numpy(self.classes[rows]),
        )

    def _windows(self, row: int, frames: np.ndarray) -> np.ndarray:
        tokens = pad_tokens(self.clips.read(row, "speech"), self.window_tokens)
        indices = window_indices(frames, self.window_tokens)
        missing = indices.max() + 1 - len(tokens)  # sound may end a little before the picture
        return np.pad(tokens, [(0, max(missing, 0)), (0, 0), (0, 0)])[indices]


def mouth_boxes(boxes: np.ndarray) -> np.ndarray:
    """Return where the mouth of a face moves `(batch, 4)`: the lower middle of face boxes `(batch, 4)`."""
    x, y, width, height = boxes.T
    return np.stack([x + 0.2 * width, y + 0.55 * height, 0.6 * width, 0.4 * height], axis=1)


def face_masks(boxes: np.ndarray, size_px: int) -> np.ndarray:
    """Draw boxes `(batch, 4)` of x, y, width, height as masks `(batch, 1, size_px, size_px)` in {0, 1}."""
    x, y, width, height = (boxes[:, i, None].astype(int) for i in range(4))
    pixels = np.arange(size_px)
    inside_x = (pixels >= x) & (pixels < x + width)
    inside_y = (pixels >= y) & (pixels < y + height)
    return (inside_y[:, None, :, None] & inside_x[:, None, None, :]).astype(np.float32)


def _check_unique(table: pd.DataFrame) -> None:
    """Raise when corpora share a clip's name, or a person who is held out in only one of them.

    Clips without a label may share both: they are told apart by their set, and nobody is tested on them.
    """
    labelled = table[table["emotion"].notna()]
    if (repeated := labelled["clip_id"].duplicated()).any():
        clip_id = labelled["clip_id"][repeated].iloc[0]
        sets = " and ".join(labelled["set"][labelled["clip_id"] == clip_id])
        raise DicetalkError(f"{sets} both have a clip {clip_id}; leave one of the corpora out of `index`.")
    sides = labelled.groupby("identity")["split"].nunique()
    if (torn := sides[sides > 1]).any():
        raise DicetalkError(
            f"{torn.index[0]} is held out in one corpus and trained on in another; make "
            "index.*.test_identities agree about this person."
        )


def _read_table(folder: Path) -> pd.DataFrame:
    path = folder / "clips.parquet"
    if not path.is_file():
        raise DicetalkError(f"{path} does not exist; run `dvc repro encode`.")
    table = pd.read_parquet(path)
    return table.assign(set=folder.name, shard=[str(folder / name) for name in table["shard"]])
