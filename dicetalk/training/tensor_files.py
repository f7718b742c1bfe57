"""Reading the tensors of a safetensors file one by one, in little memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

OPEN_BYTES = 16 * 2**20


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the value, on the CPU, of each tensor; copy what is kept.

    The values are views of the mapped file, and pages once read count as memory of the process for as long as
    the file is open. So it is opened anew after every 16 MiB.
    """
    with safe_open(path, "pt") as file:
        names = iter(list(file.keys()))
    name = next(names, None)
    while name is not None:
        read_bytes = 0
        with safe_open(path, "pt") as file:
            while name is not None and read_bytes < OPEN_BYTES:
                value = file.get_tensor(name)
                read_bytes += value.nbytes
                yield name, value
                name = next(names, None)
