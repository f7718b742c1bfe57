"""SIGTERM, SIGINT and SIGHUP end the work in order, and the same command goes on from there.

| what runs | first signal | second signal |
|---|---|---|
| a training | ends it after the step and a checkpoint | ends the process at once |
| anything else | raises `Stopped` in the main thread | ends the process at once |

One request often arrives twice: terminals and batch systems signal every process of a group, and parents pass
it on to their children. What comes within two seconds of the first signal is therefore part of it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from dicetalk.compute.launch import is_main_process
from dicetalk.errors import Stopped

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SAME_REQUEST_SECONDS = 2.0
STDERR = 2


@dataclass
class _Request:
    """What was asked of this process.

    Attributes:
        number: of the first signal.
        seconds: when it came, by the monotonic clock.
        is_deferred: whether somebody asks for it with `requested`.
    """

    number: int | None = None
    seconds: float = 0.0
    is_deferred: bool = False


_request: _Request | None = None  # none: signals do what they do without us


@contextmanager
def handled() -> Iterator[None]:
    """Treat signals as above inside the block; those that are ignored, as with `nohup`, stay ignored.

    Raises:
        Stopped: in the block, at the first signal.
    """
    global _request
    if _request is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _request = _Request()
    ignored = {number for number in HANDLED if signal.getsignal(number) is signal.SIG_IGN}
    before = {number: signal.signal(number, _receive) for number in HANDLED if number not in ignored}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        _request = None


@contextmanager
def deferred() -> Iterator[None]:
    """Raise nothing inside the block, which has to look at `requested` now and then.

    Raises:
        Stopped: at the end of the block, if a signal came and the block did not raise it.
    """
    with handled():
        request = _request or _Request()
        request.is_deferred = True
        try:
            yield
        finally:
            request.is_deferred = False
        if request.number is not None:
            raise Stopped(request.number)


def requested() -> int | None:
    """Return the number of the signal that asked this process to stop, if one did."""
    return None if _request is None else _request.number


def _receive(number: int, frame: FrameType | None) -> None:
    assert _request is not None
    if _request.number is not None:
        if time.monotonic() - _request.seconds > SAME_REQUEST_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        return
    _request.number, _request.seconds = number, time.monotonic()
    if not _request.is_deferred:
        raise Stopped(number)
    if is_main_process():
        # Not `print`, which may be what the signal interrupted
        os.write(STDERR, b"Stopping after this step, as soon as it is saved; a second signal ends at once.\n")
