"""Processes that die are told in one line."""

from __future__ import annotations

import os
import signal

import pytest

from dicetalk.compute.workers import in_processes
from dicetalk.errors import DicetalkError


def square(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_results_come_in_order() -> None:
    with in_processes(2, square, [2, 1]) as results:
        assert list(results) == [4, 1]


def test_a_killed_process_is_named_by_its_signal() -> None:
    with pytest.raises(DicetalkError, match="one of 2 processes died .SIGKILL;"):
        with in_processes(2, square, [2, 3]) as results:
            list(results)
