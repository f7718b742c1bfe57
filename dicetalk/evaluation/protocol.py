"""A protocol fixes what a number means: which clips, how many frames, which network for which metric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError, model_validator

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.metrics.metric import Metric, SetDistance
from dicetalk.evaluation.metrics.table import METRICS
from dicetalk.evaluation.roles import FEATURES, Role
from dicetalk.files import sha256_file

FOLDER = Path(__file__).with_name("protocols")


class ReaderDefinition(BaseModel):
    """The network that plays a role, and how it is fed.

    Attributes:
        network: `in-domain-...`, trained by the `evaluators` stage, or an entry of the weights registry.
        sha256: of its file, or the first digits the publisher states; null when in-domain or not published.
        feed: what is cut out of a frame, how it is resized and which frames are taken; stated, not applied,
            except for `stride` and `clean_resize`.
        stride: every n-th frame is read.
        clean_resize: of images: Pillow's bicubic filter with antialiasing instead of bilinear without.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    network: str
    sha256: str | None = None
    feed: str
    stride: PositiveInt = 1
    clean_resize: bool = False


class Definition(BaseModel):
    """The contents of `protocols/<name>.yaml`.

    Attributes:
        summary: what the protocol is for.
        split: which split of the processed data the real clips come from.
        fps: frame rate of every video that is compared.
        crop: what a frame shows; stated, not applied.
        num_frames: every system is cut to its first `num_frames` frames; null takes whole videos.
        min_frames: shorter videos are refused.
        interval_unit: what intervals and tests resample: single clips, or all clips of an identity together.
        frechet_groups: intervals of Fréchet distances leave out one of so many groups of clips; null leaves
            out one clip (or identity) at a time, which needs memory for each.
        readers: role -> its network.
        networks: metric -> the role that reads it; `load_protocol` adds the metrics whose row names it.
        left_out: metric -> why the protocol does not have it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    summary: str
    split: Literal["train", "test"]
    fps: Literal[25]
    crop: str
    num_frames: PositiveInt | None
    min_frames: PositiveInt
    interval_unit: Literal["clip", "identity"]
    frechet_groups: PositiveInt | None
    readers: dict[Role, ReaderDefinition]
    networks: dict[str, Role]
    left_out: dict[str, str]

    @property
    def metrics(self) -> list[Metric]:
        """The rows of its metrics, in the order of the table."""
        return [METRICS[name] for name in METRICS if name in self.networks]

    @model_validator(mode="after")
    def _check_roles(self) -> Definition:
        if unread := set(self.networks.values()) - set(self.readers):
            raise ValueError(f"networks: no reader for {', '.join(sorted(unread))}")
        for name, role in self.networks.items():
            metric = METRICS.get(name)
            if metric is None:
                raise ValueError(f"networks.{name}: not in the table of metrics")
            allowed = FEATURES if isinstance(metric.value, SetDistance) else (metric.role,)
            if role not in allowed:
                raise ValueError(f"networks.{name}: is read by {' or '.join(allowed)}, not by {role}")
            if metric.network is not None and self.readers[role].network != metric.network:
                raise ValueError(f"networks.{name}: only {metric.network} may be called so")
        return self


@dataclass(frozen=True)
class Protocol:
    """A named definition and the sha256 of its file, which is reported with every result."""

    name: str
    sha256: str
    definition: Definition


def load_protocol(name: str, folder: Path = FOLDER) -> Protocol:
    """Read a protocol by name, with the metrics that its file lists and those whose row names it.

    Raises:
        DicetalkError: when it is unknown or malformed.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(item.stem for item in folder.glob("*.yaml")))
        raise DicetalkError(f"evaluate.protocol: {name!r} is unknown, expected one of {names}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        added = {row.name: row.role for row in METRICS.values() if name in row.protocols}
        definition = Definition.model_validate({**content, "networks": content["networks"] | added})
    except (ValidationError, yaml.YAMLError, TypeError, KeyError) as error:
        raise DicetalkError(f"{path} is not a valid protocol: {error}") from None
    return Protocol(name, sha256_file(path), definition)
