"""A protocol fixes what a number means: which clips, how many frames, which network for which metric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from dicetalk.errors import DicetalkError
from dicetalk.files import sha256_file

FOLDER = Path(__file__).with_name("protocols")


class Definition(BaseModel):
    """The contents of `protocols/<name>.yaml`.

    Attributes:
        summary: what the protocol is for.
        split: which split of the processed data the real clips come from.
        fps: frame rate of every video that is compared.
        crop: what a frame shows; stated, not applied.
        num_frames: every system is cut to its first `num_frames` frames.
        landmark_stride: landmarks are compared on every n-th frame.
        networks: metric -> the network that reads it.
        left_out: metric -> why the protocol does not have it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    summary: str
    split: Literal["train", "test"]
    fps: Literal[25]
    crop: str
    num_frames: PositiveInt
    landmark_stride: PositiveInt
    networks: dict[str, Literal["emotion", "identity", "sync", "facemesh"]]
    left_out: dict[str, str]


@dataclass(frozen=True)
class Protocol:
    """A named definition and the sha256 of its file, which is reported with every result."""

    name: str
    sha256: str
    definition: Definition


def load_protocol(name: str, folder: Path = FOLDER) -> Protocol:
    """Read a protocol by name; raises `DicetalkError` when it is unknown or malformed."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(item.stem for item in folder.glob("*.yaml")))
        raise DicetalkError(f"evaluate.protocol: {name!r} is unknown, expected one of {names}.")
    try:
        definition = Definition.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise DicetalkError(f"{path} is not a valid protocol: {error}") from None
    return Protocol(name, sha256_file(path), definition)
