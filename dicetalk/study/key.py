"""The key of a study: what each opaque name on the page stands for. It stays with the organiser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dicetalk.errors import DicetalkError
from dicetalk.files import read_json


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Stimulus(_Part):
    """One video on the page.

    Attributes:
        system, clip: where it comes from.
        seconds: how long it plays.
        source_sha256: of the file it was made from.
    """

    system: str
    clip: str
    seconds: float
    source_sha256: str


class RatingTrial(_Part):
    """One video with a rating per criterion; `stimulus` is the name of its file."""

    kind: Literal["rating"]
    stimulus: str


class PairTrial(_Part):
    """Two videos, compared; `left` is the one the page calls A."""

    kind: Literal["pair"]
    left: str
    right: str


class CheckTrial(_Part):
    """An attention check: disguised as another trial, and the answer that its video asks for."""

    kind: Literal["check"]
    part: Literal["rating", "pair"]
    stimulus: str
    expected: int | str


KeyTrial = Annotated[RatingTrial | PairTrial | CheckTrial, Field(discriminator="kind")]


class Key(_Part):
    """Everything `study analyse` needs to know.

    Attributes:
        study: identifier, also in every result file.
        systems: names, in the order they were given.
        criteria: keys of `questions.CRITERIA` that were asked.
        stimuli: name of a file without ending -> what it is.
        trials: trial -> what it is.
        slots: the trials of each participant number, in the order they were shown; number 1 is the first.
        left_out: clips that were not usable -> why.
    """

    format: Literal["dicetalk-study-key"]
    version: Literal[1]
    study: str
    title: str
    seed: int
    systems: list[str]
    criteria: list[str]
    stimuli: dict[str, Stimulus]
    trials: dict[str, KeyTrial]
    slots: list[list[str]]
    left_out: dict[str, str]

    @model_validator(mode="after")
    def _names_lead_somewhere(self) -> Key:
        for slot in self.slots:
            if unknown := set(slot) - self.trials.keys():
                raise ValueError(f"slots name the unknown trial {min(unknown)}")
        for trial in self.trials.values():
            named = {trial.left, trial.right} if trial.kind == "pair" else {trial.stimulus}
            if unknown := named - self.stimuli.keys():
                raise ValueError(f"trials name the unknown stimulus {min(unknown)}")
        if unknown := {stimulus.system for stimulus in self.stimuli.values()} - set(self.systems):
            raise ValueError(f"stimuli name the unknown system {min(unknown)}")
        return self

    def seconds(self, trial: KeyTrial) -> float:
        """Return how long the videos of a trial play, one after the other."""
        if trial.kind == "pair":
            return self.stimuli[trial.left].seconds + self.stimuli[trial.right].seconds
        plays = 2 if trial.kind == "check" and trial.part == "pair" else 1
        return plays * self.stimuli[trial.stimulus].seconds


def read_key(path: Path) -> Key:
    """Read a key file.

    Raises:
        DicetalkError: when it is missing or no key of this version.
    """
    if not path.is_file():
        raise DicetalkError(f"{path} does not exist; expected what `study build` wrote as --key.")
    try:
        return Key.model_validate(read_json(path))
    except (ValidationError, ValueError) as error:
        raise DicetalkError(f"{path} is no key of a study, version 1: {str(error)[:300]}") from None
