"""The watch over a rank: what the training loop reports to it, so that a hang is noticed."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """The receiver of a rank's progress; `hpc.jobs.rank.watchdog` has the one of a job."""

    def resumed(self, step: int) -> None:
        """Every rank has loaded the checkpoint of `step`, 0 for none."""
        ...

    def enter(self, phase: str) -> None:
        """The rank has got on, and is now in `phase`: step, evaluation, checkpoint or export."""
        ...


class Unwatched:
    """Of a rank without a job around it: nobody waits for its progress."""

    def resumed(self, step: int) -> None:
        """Nothing."""

    def enter(self, phase: str) -> None:
        """Nothing."""
