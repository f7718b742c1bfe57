"""Reading what raters send back. A file may hold anything: it is bounded, checked, and never trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dicetalk.errors import DicetalkError

MAX_BYTES = 2**20  # a study of 100 steps makes 20 kB
MAX_STEPS = 10_000

Name = Annotated[str, Field(pattern=r"^[0-9a-f]{10}$")]
Value = Annotated[int, Field(ge=1, le=5)] | Literal["a", "same", "b"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Answer(_Part):
    """The answers to one step.

    Attributes:
        trial: its name in the key.
        values: criterion -> 1 to 5, or which of the two videos.
        seconds: from the first sight of the step to the next one.
        plays: how often each video was started.
    """

    trial: Name
    values: dict[str, Value] = Field(max_length=20)
    seconds: float = Field(ge=0, le=1e7, allow_inf_nan=False)
    plays: list[Annotated[int, Field(ge=0, le=10**6)]] = Field(max_length=2)


class Problem(_Part):
    """A step that was skipped because a video could not be played."""

    trial: Name
    reason: Literal["cannot_play"]


class Result(_Part):
    """The file of one rater.

    Attributes:
        study: the study it belongs to.
        participant: number of the list of trials, from 1.
        session: identifies the visit, so that a file sent twice is noticed.
        started, finished: times as the rater's machine tells them; never used in a calculation.
    """

    format: Literal["dicetalk-study-result"]
    version: Literal[1]
    study: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    participant: int = Field(ge=1, le=10**6)
    session: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    started: str = Field(max_length=40)
    finished: str | None = Field(max_length=40)
    answers: list[Answer] = Field(max_length=MAX_STEPS)
    problems: list[Problem] = Field(max_length=MAX_STEPS)


def read_result(path: Path) -> Result:
    """Read the file of one rater.

    Raises:
        DicetalkError: with the reason alone, when it is no result; nothing of the content is repeated but
            printable pieces of names.
    """
    if not path.is_file():  # also a pipe or a device, which would never end
        raise DicetalkError("not a file")
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DicetalkError(f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise DicetalkError(f"larger than {MAX_BYTES // 1024} KiB")
    try:
        value = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_refuse)
        return Result.model_validate(value)
    except ValidationError as error:
        raise DicetalkError(f"no result of a study: {_first(error)}") from None
    except (ValueError, RecursionError) as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else printable(str(error))
        raise DicetalkError(f"no JSON: {detail}") from None


def result_files(paths: list[Path]) -> list[Path]:
    """Return the given files, and of given folders the `.json` files in them.

    Raises:
        DicetalkError: when there are none.
    """
    files = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    if not files:
        raise DicetalkError(f"No .json files in {', '.join(map(str, paths))}.")
    return list(dict.fromkeys(files))


def printable(text: str, limit: int = 100) -> str:
    """Return text of unknown origin so that a terminal only shows it."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[: limit + 1])
    return shown if len(shown) <= limit else shown[:limit] + "..."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in found["loc"]) or "the file"
    return f"{printable(place, 60)}: {printable(found['msg'])}"
