"""What pydantic says about a parameter file, in words for the person who wrote it."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError

# What to do about a key that older parameter files lack.
MISSING = {
    "kind": "; every corpus of `index` says its kind: `kind: mead`, `kind: hdtf`, or `kind: folder` for what "
    "was called extra"
}
UNION_TAGS = ("int", "constrained-int", "float", "str", "none")  # how pydantic names the members of a union


def explain(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """Return one line per wrong key: its path, what is wrong, and what was found or probably meant."""
    # A value that fits no member of a union comes with one error for each member.
    messages: dict[str, list[str]] = {}
    found: dict[str, Any] = {}
    for item in error.errors():
        location = [part for part in item["loc"] if not _is_union_tag(part)]
        key = ".".join(str(part) for part in location)
        messages.setdefault(key, []).append(_message(item, location, schema))
        found[key] = "" if item["type"] in ("extra_forbidden", "missing") else f", found {item['input']!r}"
    keys = [key for key in messages if not any(other.startswith(f"{key}.") for other in messages)]
    return [f"{key}: {' or '.join(dict.fromkeys(messages[key]))}{found[key]}" for key in keys]


def _message(item: Any, location: list[int | str], schema: type[BaseModel]) -> str:
    if item["type"] == "extra_forbidden":
        names = _valid_names(schema, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
        return "unknown parameter" + (f"; did you mean {near[0]!r}?" if near else "")
    if item["type"] == "missing":
        return "missing" + MISSING.get(str(location[-1]), "")
    if item["type"] == "model_type":
        return "should be a section with keys"
    return item["msg"].removeprefix("Input ")


def _is_union_tag(part: int | str) -> bool:
    return isinstance(part, str) and ("[" in part or part in UNION_TAGS)


def _valid_names(schema: type[BaseModel], location: list[int | str]) -> list[str]:
    model: Any = schema
    for part in location:
        field = model.model_fields.get(part)
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        models = (item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel))
        model = next(models, None)
        if model is None:
            return []
    return list(model.model_fields)
