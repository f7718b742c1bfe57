"""A corpus of five clips in which squares are faces, so that bookkeeping can be tested without networks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from fake_face import SquareTracker, picture, row, write_clip

from dicetalk.data import clip, scheduler, track
from dicetalk.data.index_table import make_table


@pytest.fixture
def squares_are_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the networks; only counting and bookkeeping are under test."""
    monkeypatch.setattr(track, "FaceTracker", SquareTracker)
    for module in (track, clip):
        monkeypatch.setattr(module, "networks", lambda landmarks: (None, None, None))
    monkeypatch.setattr("dicetalk.weights.fetch", lambda names: {})
    monkeypatch.setattr(scheduler, "run_local", work_here)


def work_here(work, jobs, workers, label, give_up) -> int:
    """Stand in for the pool, whose processes would not know the stand-ins above."""
    for job in jobs:
        work(job)
    return 0


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[pd.DataFrame, Path]:
    """Three good clips, one without a face, one that is not there."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in "abc":
        write_clip(raw / f"{name}.mp4", lambda k, name=name: picture(40 + ord(name) % 7, 40), 12)
    write_clip(raw / "d.mp4", lambda k: picture(side=0), 12)
    names = "ecabd"
    table = make_table(
        row(clip_id=f"clip-{n}", video_path=f"{n}.mp4", audio_path=f"{n}.mp4", emotion="sad", level=2)
        for n in names
    )
    return table, raw


@pytest.fixture
def worked_on(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The clips that were worked on so far, in order."""
    seen: list[str] = []
    real = clip.preprocess_clip

    def noting(row, *rest, **scratch):
        seen.append(row["clip_id"])
        return real(row, *rest, **scratch)

    monkeypatch.setattr(clip, "preprocess_clip", noting)
    return seen
