"""Mistakes that a user can fix, and the end that a signal asked for."""

from __future__ import annotations


class DicetalkError(Exception):
    """A problem the user can act on.

    The message says what was found, what was expected, and which file or `params.yaml` key to change.
    """


class Stopped(SystemExit):
    """A signal ended the work, which the same command continues.

    No `Exception`, so that handlers of errors let it pass; where nobody catches it, the process ends without
    a traceback and with the code of the signal: 143 for SIGTERM, 130 for SIGINT, 129 for SIGHUP.

    Args:
        signal_number: which signal.
        step: of a training, the last one that is saved.
    """

    code: int

    def __init__(self, signal_number: int, step: int | None = None):
        super().__init__(128 + signal_number)
        self.step = step

    def __str__(self) -> str:
        where = "" if self.step is None else f" at step {self.step}"
        return f"stopped{where}; run the same command to go on"
