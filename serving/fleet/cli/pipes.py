"""A reader that goes away, as in `fab -l | head -1`: no traceback of the program that loads us.

SIGPIPE stays ignored, as Python has it: a rollout whose reader went away must go on.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType


def quiet_pipes() -> None:
    """Let a BrokenPipeError that nobody caught end the process without a word."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, BrokenPipeError):
            before(kind, error, trace)
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())

    sys.excepthook = hook
