"""Stop requests: a signal sets a flag, which the training loop reads at its boundaries.

Saving a checkpoint needs every rank, so nothing is saved in the handler. The loop calls `stop()`
between two steps, inside an evaluation and after a checkpoint, agrees with the other ranks, saves,
and returns "stopped".
"""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

from submitit import JobEnvironment


class StopRequest:
    """Callable that is true once a stop signal arrived at this rank; `signal` is the last one.

    `requeue` is true for the signal that comes before a time limit or a preemption: the job wants
    to go on later. It is false for SIGTERM, after which the scheduler decides (cancel, requeue).
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.requeue = False
        self.heard_at: float | None = None
        """Monotonic time of the first signal, in seconds."""

    def __call__(self) -> bool:
        return self.signal is not None

    def install(self) -> int:
        """Take over the signals on which submitit would leave the job at once.

        Returns the end of a pipe from which `hear` can be fed by a thread: Python runs a handler
        only between two instructions of the main thread, which may be long in a library's call.
        """
        signal.signal(before_limit(), self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        readable, writable = os.pipe()
        os.set_blocking(readable, False)
        os.set_blocking(writable, False)  # as set_wakeup_fd wants it
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        return readable

    def hear(self, number: int) -> None:
        """Note that signal `number` arrived; once or twice is the same. Others are left alone."""
        if number not in (signal.SIGTERM, before_limit()):
            return
        if self.signal is None:
            self.heard_at = time.monotonic()
            self.requeue = number == before_limit()
        if number == signal.SIGTERM:
            self.requeue = False
        self.signal = signal.Signals(number)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.hear(number)


def before_limit() -> int:
    """The signal that comes before a time limit or a preemption."""
    # Private: submitit has no public way to its signal, SIGUSR2 or one of its own settings.
    return int(JobEnvironment._usr_sig())
