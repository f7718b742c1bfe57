"""Do the lips follow the sound? One clip, real and generated, frame by frame above its waveform."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from dicetalk.data.media import read_video
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.landmarks import LEFT_EYE_OUTER, RIGHT_EYE_OUTER, LandmarkReader
from dicetalk.report.figure import Figure, described_svg
from dicetalk.report.plots import line_sample
from dicetalk.report.stills import image_uri
from dicetalk.report.videos import read_manifest, real_clips

UPPER_LIP, LOWER_LIP = 62, 66  # iBUG: middle of the inner lips
NUM_STILLS = 16
WIDTH, LEFT, CURVE_HEIGHT, WAVE_HEIGHT = 960, 74, 90, 60


@dataclass(frozen=True)
class Strip:
    """What the picture is drawn from.

    Attributes:
        title: clip, identity, emotion and level.
        fps: frames a second.
        real, ours: frames `(frames, height, width, 3)` uint8 of the same moments.
        sound: samples of the same span.
        openings: name of the system -> opening of the mouth `(frames,)` in eye distances, NaN without a face.
    """

    title: str
    fps: float
    real: np.ndarray
    ours: np.ndarray
    sound: np.ndarray
    openings: dict[str, np.ndarray]


def lips_figure(generated: Path, processed: list[Path], per_clip: pd.DataFrame) -> Figure | None:
    """Draw the strip of the clip whose Sync-C is the median of ours; None where sync was not measured.

    Args:
        generated: folder of `manifest.parquet` and the videos.
        processed: `data/processed/<set>` folders with the real clips.
        per_clip: a row per video, with `system`, `clip_id` and `sync_c`.
    """
    clip_id = median_clip(per_clip)
    if clip_id is None:
        return None
    strip = read_strip(generated, processed, clip_id)
    real, ours = strip.openings["real"], strip.openings["ours"]
    both = np.isfinite(real) & np.isfinite(ours)
    agreement = "was not measured"
    if both.sum() > 2 and real[both].std() > 0 and ours[both].std() > 0:
        agreement = f"{np.corrcoef(real[both], ours[both])[0, 1]:.2f}"
    step = max(len(real) // NUM_STILLS, 1)
    columns = [f"{index / strip.fps:.2f} s" for index in range(0, len(real), step)]
    rows = [
        [label, *(_number(value) for value in strip.openings[name][::step])]
        for name, label in (("real", "real"), ("ours", "ours"))
    ]
    return Figure(
        "Lips and sound",
        f"{strip.title}: the clip whose Sync-C is the median of ours, neither the best nor the"
        " worst. Frames of the real"
        " and of the generated clip stand above the moment of the sound they belong to."
        " Opening: distance of the inner"
        " lips in distances of the outer eye corners, found by the same landmark network in"
        " both; correlation of the"
        f" two curves: {agreement}.",
        [_draw(strip)],
        ["Opening", *columns],
        rows,
        [
            (line_sample("var(--ceiling)", True), "real"),
            (line_sample("var(--series-1)"), "ours, mode P"),
        ],
    )


def median_clip(per_clip: pd.DataFrame) -> str | None:
    """Return the clip of ours in the middle of the order by Sync-C."""
    if "sync_c" not in per_clip:
        return None
    ours = per_clip[per_clip["system"] == "ours"].dropna(subset=["sync_c"])
    ordered = ours.sort_values(["sync_c", "clip_id"])["clip_id"].tolist()
    return ordered[len(ordered) // 2] if ordered else None


def read_strip(generated: Path, processed: list[Path], clip_id: str) -> Strip:
    """Read both videos of a clip and measure the mouths."""
    manifest = read_manifest(generated)
    row = manifest[(manifest["system"] == "ours") & (manifest["clip_id"] == clip_id)].iloc[0]
    sample = real_clips(processed, {clip_id})[clip_id]
    ours = np.stack(list(read_video(generated / row["video_path"])))
    frames = min(len(ours), int(sample.meta["num_frames"]))
    real, fps = sample.frames()[:frames], float(sample.meta["fps"])
    sound = sample.audio()[: round(frames / fps * sample.meta["sample_rate_hz"])]
    openings = {"real": mouth_opening(real), "ours": mouth_opening(ours[:frames])}
    title = f"{row['identity']}, {row['emotion']} {row['level']}"
    return Strip(title, fps, real, ours[:frames], sound, openings)


def mouth_opening(frames: np.ndarray) -> np.ndarray:
    """Return the distance of the inner lips in eye distances `(frames,)`; NaN where no face was found.

    Args:
        frames: `(frames, height, width, 3)` uint8 RGB.
    """
    try:
        points = LandmarkReader().read(frames)
    except DicetalkError:  # no landmark network on this machine: the strip shows frames and sound alone
        return np.full(len(frames), np.nan)
    eyes = np.linalg.norm(points[:, RIGHT_EYE_OUTER] - points[:, LEFT_EYE_OUTER], axis=-1)
    return np.linalg.norm(points[:, UPPER_LIP] - points[:, LOWER_LIP], axis=-1) / eyes


def _draw(strip: Strip) -> Markup:
    count = len(strip.real)
    step = max(count // NUM_STILLS, 1)
    shown = range(0, count, step)
    span = (WIDTH - LEFT) / (len(shown) * step)  # pixels of a frame
    side = span * step
    parts = []
    for number, (label, frames) in enumerate((("real", strip.real), ("ours", strip.ours))):
        y = number * (side + 4)
        parts.append(f'<text class="name end" x="{LEFT - 8}" y="{y + side / 2 + 4:.1f}">{label}</text>')
        for index in shown:
            name = f"{label}, {index / strip.fps:.2f} s"
            parts.append(
                f'<image href="{image_uri(frames[index])}" x="{LEFT + span * index:.1f}" y="{y:.1f}"'
                f' width="{side - 2:.1f}" height="{side - 2:.1f}"><title>{escape(name)}</title></image>'
            )
    top = 2 * (side + 4) + 12
    parts += _curves(strip.openings, top, span)
    top += CURVE_HEIGHT + 12
    parts += _wave(strip.sound, top, span * count)
    bottom = top + WAVE_HEIGHT + 16
    for index in shown:
        x = LEFT + span * index
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom - 16}" y2="{bottom - 11}"/>')
        if index % (2 * step) == 0:
            parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom}">{index / strip.fps:.2f} s</text>')
    return described_svg(
        WIDTH,
        bottom + 6,
        "Frames of a real and a generated clip above their sound",
        "Two rows of frames, two curves of the opening of the mouth, and the waveform, on one time axis.",
        parts,
    )


def _curves(openings: dict[str, np.ndarray], top: float, span: float) -> list[str]:
    known = np.concatenate([values[np.isfinite(values)] for values in openings.values()])
    label = top + CURVE_HEIGHT / 2
    parts = [f'<text class="name end" x="{LEFT - 8}" y="{label:.1f}">opening</text>']
    if not len(known):
        return [*parts, f'<text class="tick" x="{LEFT}" y="{label:.1f}">no face was found</text>']
    highest = max(float(known.max()), 1e-6)
    for height, text in ((0.0, "0"), (highest, f"{highest:.2f}")):
        y = top + CURVE_HEIGHT * (1 - height / highest)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 8}" y="{y + 3.5:.1f}">{text}</text>')
    for name, values in openings.items():
        colour, dash = (
            ("var(--ceiling)", ' stroke-dasharray="5 3"') if name == "real" else ("var(--series-1)", "")
        )
        points = " ".join(
            f"{LEFT + span * (index + 0.5):.1f},{top + CURVE_HEIGHT * (1 - value / highest):.1f}"
            for index, value in enumerate(values)
            if np.isfinite(value)
        )
        parts.append(f'<polyline class="curve" style="stroke:{colour}"{dash} points="{points}"/>')
    return parts


def _wave(sound: np.ndarray, top: float, width: float) -> list[str]:
    parts = [f'<text class="name end" x="{LEFT - 8}" y="{top + WAVE_HEIGHT / 2 + 4:.1f}">sound</text>']
    bins = [part for part in np.array_split(sound, max(int(width / 2), 1)) if len(part)]
    if not bins:
        return parts
    loudest = max(float(np.abs(sound).max()), 1e-6)
    middle, scale = top + WAVE_HEIGHT / 2, WAVE_HEIGHT / 2 / loudest
    xs = LEFT + width * (np.arange(len(bins)) + 0.5) / len(bins)
    upper = [f"{x:.1f},{middle - scale * part.max():.1f}" for x, part in zip(xs, bins, strict=True)]
    lower = [f"{x:.1f},{middle - scale * part.min():.1f}" for x, part in zip(xs, bins, strict=True)]
    return [*parts, f'<polygon class="wave" points="{" ".join([*upper, *lower[::-1]])}"/>']


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "–"
