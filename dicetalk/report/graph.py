"""The pipeline as a picture: the stages of `dvc.yaml` from top to bottom, with what they wait for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from markupsafe import Markup, escape

from dicetalk.progress import format_seconds

VARIABLE = re.compile(r"\$\{([\w.]+)\}")


@dataclass
class Stage:
    """One stage of `dvc.yaml`; the instances of a `foreach` count as one.

    Attributes:
        name: as in `dvc.yaml`.
        description: its `desc`.
        instances: keys of its `foreach`, if any.
        outs: paths it writes.
        deps: paths it reads.
        after: names of the stages it directly waits for, without those implied by others.
    """

    name: str
    description: str
    instances: list[str] = field(default_factory=list)
    outs: list[str] = field(default_factory=list)
    deps: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def read_stages(dvc_yaml: Mapping[str, Any], params: Mapping[str, Any]) -> list[Stage]:
    """Return the stages in an order in which they can run, each as late as possible.

    Args:
        dvc_yaml: the parsed file.
        params: the parsed `params.yaml`, from which `${...}` is filled in.
    """
    stages = {name: _read_stage(name, entry, params) for name, entry in dvc_yaml["stages"].items()}
    waits = {
        name: [other.name for other in stages.values() if other is not stage and _feeds(other, stage)]
        for name, stage in stages.items()
    }
    depth: dict[str, int] = {}
    ordered: list[Stage] = []

    def measure(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max(map(measure, waits[name]), default=0)
        return depth[name]

    def place(name: str) -> None:
        if stages[name] not in ordered:
            for other in sorted(waits[name], key=measure, reverse=True):
                place(other)
            ordered.append(stages[name])

    for name in sorted(stages, key=measure, reverse=True):
        place(name)
    for name, stage in stages.items():
        implied = {further for other in waits[name] for further in _ancestors(other, waits)}
        stage.after = [other for other in waits[name] if other not in implied]
    return ordered


def draw(stages: list[Stage], seconds: Mapping[str, float]) -> Markup:
    """Draw the stages as rows with a lane of dots and lines on the left, like a commit graph.

    Args:
        stages: from `read_stages`.
        seconds: how long stages took, by name; others show no time.
    """
    lanes = _lanes(stages)
    row_height, lane_width, width = 30, 20, 1000
    text_x = 26 + lane_width * (max(lanes.values(), default=0) + 1)
    rows = {stage.name: number for number, stage in enumerate(stages)}

    def position(name: str) -> tuple[float, float]:
        return 14 + lane_width * lanes[name], row_height * (rows[name] + 0.5)

    parts = []
    for stage in stages:
        x, y = position(stage.name)
        for other in stage.after:
            other_x, other_y = position(other)
            bend = other_y + row_height
            curve = f"C{other_x} {other_y + row_height * 0.6} {x} {bend - row_height * 0.6} {x} {bend}"
            parts.append(f'<path class="edge" d="M{other_x} {other_y} {curve} V{y}"/>')
    for stage in stages:
        x, y = position(stage.name)
        label = stage.name + (f" × {len(stage.instances)}" if stage.instances else "")
        parts.append(f'<circle class="dot ours" cx="{x}" cy="{y}" r="5"/>')
        parts.append(f'<text class="stage" x="{text_x}" y="{y + 4.5}">{escape(label)}</text>')
        parts.append(
            f'<text class="note" x="{text_x + 150}" y="{y + 4.5}">{escape(stage.description)}</text>'
        )
        if stage.name in seconds:
            time = format_seconds(seconds[stage.name])
            parts.append(f'<text class="note end" x="{width - 8}" y="{y + 4.5}">{time}</text>')
    return Markup(
        f'<svg class="chart wide" viewBox="0 0 {width} {row_height * len(stages)}" role="img"'
        f' aria-label="stages of the pipeline">{"".join(parts)}</svg>'
    )


def _read_stage(name: str, entry: Mapping[str, Any], params: Mapping[str, Any]) -> Stage:
    body, instances = entry, []
    variables: list[dict[str, Any]] = [{}]
    if "foreach" in entry:
        body, source = entry["do"], entry["foreach"]
        if isinstance(source, str):
            source = _look_up(VARIABLE.fullmatch(source)[1], params)  # type: ignore[index]
        pairs = source.items() if isinstance(source, Mapping) else [(str(item), item) for item in source]
        variables = [{"key": key, "item": item} for key, item in pairs]
        instances = [item["key"] for item in variables]
    stage = Stage(name, body.get("desc", ""), instances)
    for values in variables:
        scope = {**params, **values}
        stage.outs += _paths(body.get("outs", []) + body.get("metrics", []), scope)
        stage.deps += _paths(body.get("deps", []), scope)
    return stage


def _paths(items: list[Any], scope: Mapping[str, Any]) -> list[str]:
    paths = [item if isinstance(item, str) else next(iter(item)) for item in items]
    return [VARIABLE.sub(lambda match: str(_look_up(match[1], scope)), path) for path in paths]


def _look_up(name: str, scope: Mapping[str, Any]) -> Any:
    value: Any = scope
    for part in name.split("."):
        value = value[part]
    return value


def _feeds(first: Stage, second: Stage) -> bool:
    pairs = ((PurePosixPath(out), PurePosixPath(dep)) for out in first.outs for dep in second.deps)
    return any(out == dep or out in dep.parents or dep in out.parents for out, dep in pairs)


def _ancestors(name: str, waits: Mapping[str, list[str]]) -> set[str]:
    return {name for other in waits[name] for name in (other, *_ancestors(other, waits))}


def _lanes(stages: list[Stage]) -> dict[str, int]:
    """Give each stage a column such that no line to it passes through another stage."""
    rows = {stage.name: number for number, stage in enumerate(stages)}
    lanes: dict[str, int] = {}
    taken: set[tuple[int, int]] = set()
    for row, stage in enumerate(stages):
        first = min((rows[other] for other in stage.after), default=row - 1)
        waited_for = {other for later in stages[row + 1 :] for other in later.after}
        busy = {lanes[name] for name in lanes if name in waited_for} if not stage.after else set()
        lane = 0
        while lane in busy or any((lane, between) in taken for between in range(first + 1, row + 1)):
            lane += 1
        lanes[stage.name] = lane
        taken |= {(lane, between) for between in range(first + 1, row + 1)}
    return lanes


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file as DVC does (YAML 1.2)."""
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
