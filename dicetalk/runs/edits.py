"""What is different between two descriptions of what a stage is made of, and edits while it runs.

DVC records a result as made of the code and parameters that are there when it ends. Edited in mid-run, these
are not those it was made of, and nothing would ever run again to notice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dicetalk.compute.launch import DVC_STAGE
from dicetalk.errors import DicetalkError
from dicetalk.runs.code import code_digests
from dicetalk.runs.declaration import read_declaration
from dicetalk.tracking.runs import flatten


@contextmanager
def unedited() -> Iterator[None]:
    """Refuse the result of a block if code or parameters of the stage that DVC runs were edited meanwhile.

    Stages with `stage_work` have this from there; of a stage run by hand DVC records nothing.

    Raises:
        DicetalkError: at the end of the block.
    """
    name = os.environ.get(DVC_STAGE)
    if name is None:
        yield
        return
    before = _code_and_params(name)
    yield
    refuse_edits(name, before, _code_and_params(name))


def refuse_edits(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `DicetalkError` unless both descriptions of a stage are the same."""
    if changed := [part for part in before if before[part] != now[part]]:
        raise DicetalkError(
            f"{differences(before, now, changed)} changed while {name} ran, so its result is not recorded. "
            "Undo the change to keep the work, or keep the change, and run the same command again."
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any], parts: Sequence[str]) -> str:
    """Return the names of what differs in some parts of two descriptions."""
    names = []
    for part in parts:
        both = before.get(part), now[part]
        names += changed_keys(*map(flatten, both)) if all(isinstance(v, dict) for v in both) else [part]
    return ", ".join(names)


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values differ."""
    return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))


def _code_and_params(name: str) -> dict[str, Any]:
    declaration = read_declaration(name)
    return {"code": code_digests(declaration.code), "params": declaration.params}
