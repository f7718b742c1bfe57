"""The release's emotion priors, `.npy` files around a pickled `{"mu": float32 (1, 256)}`, without unpickling.

`numpy.load(allow_pickle=True)` runs whatever code such a file names. Here the pickle's instructions are only
looked at: names of functions stay names and calls stay records, nothing is imported or called, so a file can
do no more than be refused.
"""

from __future__ import annotations

import io
import math
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_path
from dicetalk.labels import EMOTIONS

MAX_BYTES = 1 << 20  # a prior has 1,024 bytes of numbers
RECONSTRUCT = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
_MARK = object()


@dataclass(frozen=True)
class _Name:
    """A global the pickle mentions, as `module attribute`."""

    text: str


@dataclass
class _Call:
    """A call the pickle asks for, and the state it wants to give the result."""

    function: _Name
    arguments: Any
    state: Any = None


def read_prior(path: Path) -> np.ndarray:
    """Read one official prior.

    Returns:
        The vector `mu`, float32 `(prior_dim,)`.

    Raises:
        DicetalkError: when the file is anything but a NumPy file of `{"mu": float32 (1, prior_dim)}`, or
            holds values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise DicetalkError(f"{path} does not exist; the release has them as examples/emo/<emotion>.npy.")
    if path.stat().st_size > MAX_BYTES:
        raise DicetalkError(
            f"{path} has {path.stat().st_size} bytes; an emotion prior has less than {MAX_BYTES}."
        )
    try:
        vector = _vector(_parse(_pickled_part(path.read_bytes())))
    except Exception as error:  # a malformed pickle fails in more ways than can be listed
        raise DicetalkError(
            f"{path} is not an emotion prior, a saved {{'mu': float32 (1, n)}}: {error}"
        ) from error
    if not np.isfinite(vector).all():
        raise DicetalkError(f"{path}: mu has NaN or infinite values.")
    return vector


def read_priors(folder: Path) -> dict[str, np.ndarray]:
    """Read `<emotion>.npy` for all eight emotions; raises as `read_prior`."""
    return {emotion: read_prior(Path(folder) / f"{emotion}.npy") for emotion in EMOTIONS}


def write_prior(path: Path, vector: np.ndarray) -> None:
    """Write a prior `(prior_dim,)` as the official code reads it."""
    with atomic_path(Path(path)) as temporary, open(temporary, "wb") as stream:
        np.save(stream, np.array({"mu": vector[None].astype(np.float32)}), allow_pickle=True)


def _pickled_part(content: bytes) -> bytes:
    """Return what follows the NumPy header, which must announce one Python object."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
        version
    ]
    shape, _, dtype = read_header(stream)
    if shape != () or dtype.kind != "O":
        raise ValueError(f"found an array of shape {shape} and type {dtype}")
    return stream.read()


def _parse(data: bytes) -> Any:
    """Return the pickled value with calls left as records.

    Raises:
        ValueError: for instructions that such a file does not need.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = len(stack) - 1 - stack[::-1].index(_MARK)
        values = stack[start + 1 :]
        del stack[start:]
        return values

    opcode: pickletools.OpcodeInfo
    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            break
        if name in (
            "BININT",
            "BININT1",
            "BININT2",
            "BINUNICODE",
            "SHORT_BINUNICODE",
            "BINBYTES",
            "SHORT_BINBYTES",
        ):
            stack.append(argument)
        elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("APPEND", "APPENDS"):
            values = [stack.pop()] if name == "APPEND" else since_mark()
            stack[-1].extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = [stack.pop(-2), stack.pop()] if name == "SETITEM" else since_mark()
            stack[-1].update({_text(key): item for key, item in zip(values[::2], values[1::2], strict=True)})
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_Name(argument))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_Name(f"{_text(stack[-2])} {_text(stack[-1])}")]
        elif name == "REDUCE":
            stack[-2:] = [_Call(stack[-2], stack[-1])]
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].state = state
        else:
            raise ValueError(f"it holds the pickle instruction {name}")
    return stack.pop()


def _text(value: Any) -> str:
    """Return a string as it is: nested tuples, the alternative, can take forever to hash or print."""
    if not isinstance(value, str):
        raise ValueError(f"it uses a {type(value).__name__} as a name")
    return value


def _vector(value: Any) -> np.ndarray:
    """Return `mu` of the parsed 0-dimensional array of objects."""
    items = _array_state(value)[4]
    if not (
        isinstance(items, list) and len(items) == 1 and isinstance(items[0], dict) and set(items[0]) == {"mu"}
    ):
        raise ValueError("the object is not a dictionary with the single key mu")
    _, shape, dtype, fortran_order, content = _array_state(items[0]["mu"])
    if not (
        isinstance(dtype, _Call) and dtype.function == _Name("numpy dtype") and dtype.arguments[0] == "f4"
    ):
        raise ValueError("mu is not of type float32")
    order = dtype.state[1]
    if not (isinstance(shape, tuple) and len(shape) == 2 and all(isinstance(size, int) for size in shape)):
        raise ValueError("mu has not two axes")
    if shape[0] != 1 or fortran_order or order not in "<>" or len(content) != 4 * math.prod(shape):
        raise ValueError(f"mu has shape {shape} and {len(content)} bytes")
    return np.frombuffer(content, f"{order}f4").astype(np.float32)


def _array_state(value: Any) -> tuple[Any, ...]:
    """Return version, shape, dtype, Fortran order and content of a record of a NumPy array."""
    if not (
        isinstance(value, _Call) and isinstance(value.function, _Name) and value.function.text in RECONSTRUCT
    ):
        found = value.function.text if isinstance(value, _Call) else type(value).__name__
        raise ValueError(f"it wants {found} where a NumPy array is expected")
    if not isinstance(value.state, tuple) or len(value.state) != 5:
        raise ValueError("an array without content")
    return value.state
