"""Still pictures of the report: a contact sheet of emotions and people."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from dicetalk.data.media import read_video
from dicetalk.data.shards import Sample
from dicetalk.labels import EMOTIONS
from dicetalk.report.videos import grid_row, read_manifest, real_clips

MAX_PX, JPEG_QUALITY = 128, 88


@dataclass(frozen=True)
class Still:
    """One embedded picture.

    Attributes:
        source: data URI.
        label: what it shows, also for readers that do not see it.
    """

    source: str
    label: str


@dataclass(frozen=True)
class SheetRow:
    """A person of the contact sheet.

    Attributes:
        identity: who.
        portrait: the reference image that ours are made from.
        ours: middle frame of the generated clip of each emotion; None where there is none.
        real: the same frame of the recorded clip.
    """

    identity: str
    portrait: Still
    ours: list[Still | None]
    real: list[Still | None]


def contact_sheet(generated: Path, processed: list[Path], num_identities: int, level: int) -> list[SheetRow]:
    """Return a row per test identity; the moment of each clip is its middle, not a chosen one.

    Args:
        generated: folder of `manifest.parquet` and the videos.
        processed: `data/processed/<set>` folders with the real clips.
        num_identities: number of rows.
        level: intensity shown; emotions that lack it (neutral) show their strongest.
    """
    manifest = read_manifest(generated)
    ours = manifest[manifest["system"] == "ours"].sort_values("clip_id")
    cells = {
        identity: [grid_row(ours[ours["identity"] == identity], emotion, level) for emotion in EMOTIONS]
        for identity in sorted(ours["identity"].unique())[:num_identities]
    }
    chosen = [row for rows in cells.values() for row in rows if row is not None]
    wanted = {row[name] for row in chosen for name in ("clip_id", "reference_clip")}
    samples = real_clips(processed, wanted)
    return [
        SheetRow(
            identity,
            _portrait(identity, samples, next(row for row in rows if row is not None)),
            [None if row is None else _generated_still(generated, row) for row in rows],
            [None if row is None else _real_still(samples, row) for row in rows],
        )
        for identity, rows in cells.items()
        if any(row is not None for row in rows)
    ]


def image_uri(frame: np.ndarray) -> str:
    """Return a frame, uint8 RGB `(height, width, 3)`, as a JPEG data URI of at most `MAX_PX` on a side."""
    image = Image.fromarray(frame)
    image.thumbnail((MAX_PX, MAX_PX))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _label(row: pd.Series) -> str:
    return f"{row['identity']}, {row['emotion']} level {row['level']}"


def _middle(row: pd.Series) -> int:
    return int(row["num_frames"]) // 2


def _portrait(identity: str, samples: dict[str, Sample], row: pd.Series) -> Still:
    frame = samples[row["reference_clip"]].frames()[int(row["reference_frame"])]
    return Still(image_uri(frame), f"{identity}, portrait given to the model")


def _generated_still(generated: Path, row: pd.Series) -> Still:
    frames = list(read_video(generated / row["video_path"]))
    return Still(image_uri(frames[_middle(row)]), f"Generated: {_label(row)}")


def _real_still(samples: dict[str, Sample], row: pd.Series) -> Still:
    return Still(image_uri(samples[row["clip_id"]].frames()[_middle(row)]), f"Real: {_label(row)}")
