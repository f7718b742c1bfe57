"""Which numbers may stand in one column: those read in the same way, and no others.

The same model scores 0.42, 0.49 or 0.49 under three published emotion protocols. So a column knows how its
numbers were read, and refuses any that was read otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from dicetalk.errors import DicetalkError
from dicetalk.files import read_json, sha256_file


class Entry(BaseModel):
    """One number of `metrics/evaluate.json`: the value, its 95 % interval, and the clips behind it."""

    model_config = ConfigDict(frozen=True)

    value: FiniteFloat
    ci95: tuple[FiniteFloat, FiniteFloat]
    n: int


class _Named(BaseModel):
    name: str
    sha256: str


class _Protocol(_Named):
    summary: str = ""


class Evaluation(BaseModel):
    """What the leaderboard reads of `metrics/evaluate.json`.

    Attributes:
        protocol: name, hash and purpose.
        networks: metric -> the network that read it; a metric without one is computed from pixels or times.
        systems: system -> metric -> number.
        skipped: metric -> why it is missing.
    """

    protocol: _Protocol
    networks: dict[str, _Named]
    systems: dict[str, dict[str, Entry]]
    skipped: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """How a number was read; two numbers are comparable when all of this is equal."""

    metric: str
    protocol: str
    protocol_sha256: str
    network: str | None
    network_sha256: str | None

    def __str__(self) -> str:
        network = f"{self.network} {self.network_sha256[:12]}" if self.network_sha256 else "no network"
        return f"{self.metric} of protocol {self.protocol} {self.protocol_sha256[:12]} by {network}"


@dataclass
class Column:
    """Numbers of several systems that were all read in the same way.

    Attributes:
        reading: how.
        entries: row -> number.
    """

    reading: Reading
    entries: dict[str, Entry] = field(default_factory=dict)

    def add(self, row: str, reading: Reading, entry: Entry) -> None:
        """Put a number into the column.

        Raises:
            DicetalkError: when it was read in another way than the column's, or the row is taken.
        """
        if reading != self.reading:
            raise DicetalkError(
                f"{row}: {reading} cannot stand in one column with {self.reading}. Evaluate all systems with"
                " the same protocol and the same networks."
            )
        if row in self.entries:
            raise DicetalkError(f"{row}: two numbers for {reading}; give each file another name.")
        self.entries[row] = entry


def read_evaluation(path: Path) -> tuple[Evaluation, str]:
    """Read a file like `metrics/evaluate.json`, and its sha256.

    Raises:
        DicetalkError: when it is missing or of another form.
    """
    try:
        return Evaluation.model_validate(read_json(path)), sha256_file(path)
    except (ValidationError, ValueError, RecursionError) as error:
        raise DicetalkError(f"{path} is no result of `dicetalk evaluate`: {str(error)[:300]}") from None


def reading_of(evaluation: Evaluation, metric: str) -> Reading:
    """Return how a metric of an evaluation was read."""
    network = evaluation.networks.get(metric)
    return Reading(
        metric,
        evaluation.protocol.name,
        evaluation.protocol.sha256,
        network.name if network else None,
        network.sha256 if network else None,
    )
