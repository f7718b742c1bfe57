"""What decides the result of a stage, as `dvc.yaml` declares it: code, parameters, inputs.

`dvc.yaml` is the only list. DVC goes by it when it decides what must run, and the key of a run is made of the
same entries, so that neither can know of something the other misses. Tests hold it against the imports of the
stages and against the parameters they read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = re.compile(r"\$\{([\w.]+)\}")
CODE = re.compile(r"^(\.\./)*(dicetalk|stages)/")


@dataclass(frozen=True)
class Declaration:
    """One stage, or one instance of a `foreach`.

    Attributes:
        name: as DVC calls it, e.g. `encode@mead`.
        code: modules, and other files of the program, that it runs.
        inputs: other files and folders that it reads.
        params: parameters by file and dotted key.
        outs: what it writes, its metrics last.
    """

    name: str
    code: list[str]
    inputs: list[str]
    params: dict[str, Any]
    outs: list[str]


def read_declaration(name: str, root: Path = Path()) -> Declaration:
    """Return the declaration of a stage, or of the instance of one, from `dvc.yaml` and `params.yaml`.

    Args:
        name: e.g. `train_embedder` or `encode@mead`.
        root: folder of both files.
    """
    stage, _, instance = name.partition("@")
    entry = load_yaml(root / "dvc.yaml")["stages"][stage]
    params = load_yaml(root / "params.yaml")
    scopes = dict(instances(entry, params))
    body, scope = entry.get("do", entry), scopes[instance]
    deps = paths(body.get("deps", []), scope)
    return Declaration(
        name,
        [dep for dep in deps if CODE.match(dep)],
        [dep for dep in deps if not CODE.match(dep)],
        dict(_params(body.get("params", []), scope, params, root)),
        paths(body.get("outs", []) + body.get("metrics", []), scope),
    )


def instances(entry: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the key of each instance of a stage, empty for one without `foreach`, and what `${...}` means."""
    source = entry.get("foreach")
    if source is None:
        yield "", dict(params)
        return
    if isinstance(source, str):
        source = look_up(VARIABLE.fullmatch(source)[1], params)  # type: ignore[index]
    pairs = source.items() if isinstance(source, Mapping) else [(str(item), item) for item in source]
    for key, item in pairs:
        yield key, {**params, "key": key, "item": item}


def paths(items: list[Any], scope: Mapping[str, Any]) -> list[str]:
    """Return the paths of `deps`, `outs` or `metrics`, with or without options, filled in from `scope`."""
    return [_fill(item if isinstance(item, str) else next(iter(item)), scope) for item in items]


def look_up(name: str, scope: Mapping[str, Any]) -> Any:
    """Return the value of a dotted key; `KeyError` when there is none."""
    value: Any = scope
    for part in name.split("."):
        value = value[part]
    return value


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file as DVC does (YAML 1.2)."""
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def _params(
    items: list[Any], scope: Mapping[str, Any], params: Mapping[str, Any], root: Path
) -> Iterator[tuple[str, Any]]:
    for item in items:
        if isinstance(item, str):
            yield (key := _fill(item, scope)), look_up(key, params)
            continue
        for file, keys in item.items():
            values = load_yaml(root / file)
            for key in (_fill(key, scope) for key in keys):
                yield f"{file}:{key}", look_up(key, values)


def _fill(text: str, scope: Mapping[str, Any]) -> str:
    return VARIABLE.sub(lambda match: str(look_up(match[1], scope)), text)
