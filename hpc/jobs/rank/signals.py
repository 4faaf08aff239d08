"""Stop requests: a signal sets a flag, and the training loop reads it between two steps.

Saving a checkpoint needs every rank, so nothing is saved in the handler. The loop calls `stop()` at
a step boundary, agrees with the other ranks, saves, and returns "stopped".
"""

from __future__ import annotations

import signal
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

    def __call__(self) -> bool:
        return self.signal is not None

    def install(self) -> None:
        """Take over the signals on which submitit would leave the job at once."""
        # Private: submitit has no public way to its signal, SIGUSR2 or one of its own settings.
        before_limit = JobEnvironment._usr_sig()
        signal.signal(before_limit, self._on_limit)
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_limit(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.requeue = True
        self._on_signal(number, frame)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            self.requeue = False
        self.signal = signal.Signals(number)
