"""Threads as an environment would allow them, and how many a library would use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_info, threadpool_limits


@contextmanager
def allowed_threads(number: int) -> Iterator[None]:
    """Let libraries use `number` threads wherever the code does not say otherwise."""
    before = torch.get_num_threads()
    with threadpool_limits(number):
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def threads_in_use() -> dict[str, int]:
    """Return how many threads a product of NumPy or SciPy (`blas`), and one of PyTorch, would use now."""
    libraries = threadpool_info()  # before PyTorch is asked, which sets this thread's number first
    return {
        "blas": max(item["num_threads"] for item in libraries if item["user_api"] == "blas"),
        "torch": max(item["num_threads"] for item in libraries if "/torch/" in item["filepath"]),
    }
