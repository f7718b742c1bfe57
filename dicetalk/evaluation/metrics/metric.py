"""What a row of the table of metrics says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from dicetalk.config import Evaluate
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.metrics.frechet import Moments
from dicetalk.evaluation.roles import Role
from dicetalk.evaluation.trial import Trial
from dicetalk.labels import EMOTIONS

# The numbers of one video by column of the table of clips; none where a part is missing.
Measure = Callable[[Trial, Evaluate], Mapping[str, float]]
Topic = Literal["recognition", "probability", "strength", "sync", "lips", "identity", "features", "pixels"]
Better = Literal["higher", "lower", "near `real`'s", "near 0"]
ARROWS: dict[Better, str] = {"higher": "↑", "lower": "↓"}


@dataclass(frozen=True)
class Labels:
    """Which clips count, by their labels.

    Attributes:
        emotions: clips with these labels count.
        level: clips of this level count; all when None.
        by_emotion: whether each emotion counts equally, and none may be missing.
    """

    emotions: tuple[str, ...] = EMOTIONS
    level: int | None = None
    by_emotion: bool = False

    def choose(self, rows: pd.DataFrame, column: str) -> pd.DataFrame:
        """Return the rows that count and have a value in `column`.

        Raises:
            DicetalkError: when none does or an emotion is missing.
        """
        if column not in rows or (found := rows.dropna(subset=[column])).empty:
            raise DicetalkError("no clip with a label could be measured")
        found = found[found["emotion"].isin(self.emotions)]
        if self.level is not None:
            found = found[found["level"] == self.level]
        missing = set(self.emotions) - set(found["emotion"]) if self.by_emotion or found.empty else set()
        if missing:
            where = "" if self.level is None else f" at level {self.level}"
            raise DicetalkError(f"no clip shows {', '.join(sorted(missing))}{where}")
        return found


@dataclass(frozen=True)
class ClipMean:
    """A mean over clips.

    Attributes:
        measure: gives the numbers of one video; called once for all metrics that name it. It may raise
            `DicetalkError`, which is listed as the reason why the clip is missing.
        column: which of its numbers.
        labels: which clips count; without, those that have no label do too.
    """

    measure: Measure
    column: str
    labels: Labels | None = None

    def choose(self, rows: pd.DataFrame, emotions: Collection[str]) -> pd.DataFrame:
        """Return the rows of a system that count.

        Args:
            rows: one per video, with `emotion`, `level` and the columns that were measured.
            emotions: those that the emotion network knows; labelled clips of others do not count.

        Raises:
            DicetalkError: when none does.
        """
        if self.labels is None:
            known = rows.dropna(subset=[self.column]) if self.column in rows else rows[:0]
            if known.empty:
                raise DicetalkError("no clip could be measured")
            return known
        if rows["emotion"].isna().all():
            raise DicetalkError("the clips have no emotion labels")
        return self.labels.choose(rows[rows["emotion"].isin(emotions)], self.column)

    @property
    def by_emotion(self) -> bool:
        """Whether it is the mean of the means of each emotion."""
        return self.labels is not None and self.labels.by_emotion

    @property
    def paired(self) -> bool:
        """Whether systems are compared clip by clip in it: every clip counts, and as much as any other."""
        return self.labels in (None, Labels())


@dataclass(frozen=True)
class SetDistance:
    """A distance between a system's clips and the real ones, each taken together.

    Attributes:
        distance: of the moments of the feature vectors of either side.
        noun: what it is called in messages.
    """

    distance: Callable[[Moments, Moments], float]
    noun: str


@dataclass(frozen=True)
class Metric:
    """One row.

    Attributes:
        name: its key in `metrics/evaluate.json`. A metric is named after what it is.
        label: its name on pages.
        unit: of its numbers; empty for none.
        better: which values are.
        topic: what it is about; pages show the metrics of a topic together.
        role: whose reading it needs; for a set distance, a protocol may name another.
        value: how it is computed.
        definition: what it is, a sentence without its full stop.
        floor: the system that it must tell from ours, where one was made for it.
        network: the only network that may be used under this name, where there is one.
        protocols: those that have it without listing it in their file.
    """

    name: str
    label: str
    unit: str
    better: Better
    topic: Topic
    role: Role
    value: ClipMean | SetDistance
    definition: str
    floor: str | None = None
    network: str | None = None
    protocols: tuple[str, ...] = ()

    @property
    def arrow(self) -> str:
        """The direction as a sign; empty where neither more nor less is better."""
        return ARROWS.get(self.better, "")
