"""Parameter files are checked whole, and refused with the path of each wrong key."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dicetalk.config.checks import contradictions
from dicetalk.config.errors import explain
from dicetalk.config.params import Params
from dicetalk.errors import DicetalkError

PARAMS_FILE = Path("params.yaml")
Schema = TypeVar("Schema", bound=BaseModel)


def load_params(path: Path | None = None) -> Params:
    """Read and validate a parameter file.

    Raises:
        DicetalkError: naming the path of each unknown, missing or mistyped key, and the nearest valid name.
    """
    path = PARAMS_FILE if path is None else Path(path)
    return parse_params(read_yaml(path), str(path))


def parse_params(values: dict[str, Any], where: str, schema: type[Schema] = Params) -> Schema:  # type: ignore[assignment]
    """Validate a nested mapping of parameters; `where` names its origin in errors."""
    try:
        params = schema.model_validate(values)
        wrong = list(contradictions(params)) if isinstance(params, Params) else []
    except ValidationError as error:
        wrong = explain(error, schema)
    if wrong:
        raise DicetalkError("\n  ".join([f"{where} has wrong parameters:", *wrong]))
    return params


def config_hash(*sections: Any) -> str:
    """Return 12 hex digits naming the resolved parameters, e.g. for `runs/<stage>-<hash>/`."""
    values = [item.model_dump(mode="json") if isinstance(item, BaseModel) else item for item in sections]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of sections; raises `DicetalkError` when there is none or it is not such a file."""
    # ruamel reads YAML 1.2 as DVC does: there `1e-4` is a number, which PyYAML takes for a string.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.is_file():
        raise DicetalkError(f"{path} does not exist; run `make profile P=demo` or pass another file.")
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise DicetalkError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise DicetalkError(f"{path} must hold sections with parameters, found {type(values).__name__}.")
    return values
