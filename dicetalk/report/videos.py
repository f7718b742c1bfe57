"""Videos of the report, embedded so that the page is one file: an emotion grid, and real clips and ours."""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import pandas as pd

from dicetalk.data.mp4 import write_video
from dicetalk.data.shards import Sample, read_samples
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.systems import SYSTEMS, find_system
from dicetalk.labels import EMOTIONS, levels_of


@dataclass(frozen=True)
class Video:
    """One embedded mp4.

    Attributes:
        source: data URI.
        label: what it shows.
    """

    source: str
    label: str


@dataclass(frozen=True)
class Comparison:
    """The same clip, real and generated.

    Attributes:
        title: clip, identity, emotion and level.
        videos: system label -> video, the real one first.
    """

    title: str
    videos: dict[str, Video]


def read_manifest(generated: Path) -> pd.DataFrame:
    """Read `manifest.parquet` of the generated videos; names the stage that writes it when missing."""
    path = generated / "manifest.parquet"
    if not path.is_file():
        raise DicetalkError(f"{path} does not exist; run `dvc repro generate`.")
    return pd.read_parquet(path)


def emotion_grid(generated: Path, num_identities: int, level: int) -> dict[str, list[Video | None]]:
    """Return, for the first test identities, our mode-P video of each emotion; `None` where there is none.

    Args:
        generated: folder of `manifest.parquet` and the videos.
        num_identities: rows of the grid.
        level: intensity shown; emotions that lack it (neutral) show their strongest.
    """
    manifest = read_manifest(generated)
    ours = manifest[manifest["system"] == "ours"].sort_values("clip_id")
    grid = {}
    for identity in sorted(ours["identity"].unique())[:num_identities]:
        own = ours[ours["identity"] == identity]
        grid[identity] = [_grid_cell(generated, own, emotion, level) for emotion in EMOTIONS]
    return grid


def comparisons(generated: Path, processed: list[Path], count: int) -> list[Comparison]:
    """Return clips of different people and emotions, real and as every system generated them.

    Args:
        generated: folder of `manifest.parquet` and the videos.
        processed: `data/processed/<set>` folders with the real clips.
        count: how many clips.
    """
    manifest = read_manifest(generated)
    systems = [name for name in SYSTEMS if (manifest["system"] == name).any()]
    everywhere = set.intersection(*(set(manifest["clip_id"][manifest["system"] == name]) for name in systems))
    table = manifest[(manifest["system"] == "ours") & manifest["clip_id"].isin(everywhere)].sort_values(
        "clip_id"
    )
    chosen = _diverse(table, count)
    real = real_clips(processed, set(chosen["clip_id"]))
    found = []
    for row in chosen.itertuples():
        videos = {"Real": _real_video(real[row.clip_id], int(row.num_frames))}
        for name in systems:
            path = manifest["video_path"][
                (manifest["system"] == name) & (manifest["clip_id"] == row.clip_id)
            ].iloc[0]
            videos[find_system(name).label] = Video(
                embedded(generated / path), f"{find_system(name).label}: {row.clip_id}"
            )
        found.append(Comparison(f"{row.identity}, {row.emotion} {row.level}", videos))
    return found


def grid_row(own: pd.DataFrame, emotion: str, level: int) -> pd.Series | None:
    """Return the row of a person's video of an emotion, at `level` or the strongest it has; or None.

    Args:
        own: rows of the manifest of one identity and one system.
        emotion: which.
        level: intensity wanted.
    """
    wanted = min(level, levels_of(emotion)[-1])
    rows = own[(own["emotion"] == emotion) & (own["level"] == wanted)]
    return None if rows.empty else rows.iloc[0]


def _grid_cell(generated: Path, own: pd.DataFrame, emotion: str, level: int) -> Video | None:
    row = grid_row(own, emotion, level)
    if row is None:
        return None
    return Video(
        embedded(generated / row["video_path"]), f"{row['identity']}, {emotion} level {row['level']}"
    )


def _diverse(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Walk through identities and emotions together, strongest level first."""
    identities = sorted(table["identity"].unique())
    # All emotions come up, neighbours in the list far apart
    step = next(step for step in (3, 5, 1) if gcd(step, len(EMOTIONS)) == 1)
    rows = []
    for number in range(min(count, len(table))):
        own = table[table["identity"] == identities[number % len(identities)]]
        emotion = EMOTIONS[(step * number) % len(EMOTIONS)]
        matching = own[own["emotion"] == emotion]
        rows.append((matching if len(matching) else own).sort_values("level", ascending=False).iloc[0])
    return pd.DataFrame(rows).drop_duplicates("clip_id")


def real_clips(processed: list[Path], clip_ids: set[str]) -> dict[str, Sample]:
    """Return the recorded clips of these names from `data/processed/<set>` folders; all must be there."""
    found: dict[str, Sample] = {}
    for folder in processed:
        kept = pd.read_parquet(folder / "kept.parquet")
        for shard in sorted(kept["shard"][kept["clip_id"].isin(clip_ids)].unique()):
            samples = read_samples(folder / shard)
            found |= {sample.clip_id: sample for sample in samples if sample.clip_id in clip_ids}
    if missing := sorted(clip_ids - set(found)):
        raise DicetalkError(f"Generated clips {missing} are not in {', '.join(map(str, processed))}.")
    return found


def _real_video(sample: Sample, num_frames: int) -> Video:
    fps, rate = sample.meta["fps"], sample.meta["sample_rate_hz"]
    sound = sample.audio()[: round(num_frames / fps * rate)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "real.mp4"
        write_video(path, sample.frames()[:num_frames], fps, sound, rate)
        return Video(embedded(path), f"Real: {sample.clip_id}")


def embedded(path: Path) -> str:
    """Return an mp4 as a data URI."""
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
