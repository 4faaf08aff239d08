"""Stop requests: a signal sets a flag, and the training loop reads it between two steps.

Saving a checkpoint needs every rank, so nothing is saved in the handler. The loop asks `stop()` at
a step boundary, agrees with the other ranks, saves, and returns "stopped".
"""

from __future__ import annotations

import signal
from types import FrameType

from submitit import JobEnvironment


class Stop:
    """Callable that says whether this rank was asked to stop, and remembers why.

    `requeue` is true for the signal that comes before a time limit or a preemption: the job wants
    to go on later. It is false for SIGTERM, after which the scheduler decides (cancel, requeue).
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.requeue = False

    def __call__(self) -> bool:
        return self.signal is not None

    def listen(self) -> None:
        """Take over the signals that submitit would answer by leaving the job at once."""
        before_limit = JobEnvironment._usr_sig()
        signal.signal(before_limit, self._ask_requeue)
        signal.signal(signal.SIGTERM, self._ask)

    def _ask_requeue(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.requeue = True
        self._ask(number, frame)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            self.requeue = False
        self.signal = signal.Signals(number)
