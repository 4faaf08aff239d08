"""The watch over one rank: a hang is noticed, put on record with the stacks, and ended.

A thread of the rank waits for signals and looks at the rank's progress. A step ends on all ranks or
on none, so a hang of one is a hang of all, and each writes its stacks into its own log. A rank that
is stopped, or whose node is gone, leaves none: that is how it is found. Suspended time does not
count.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpc.jobs.rank.signals import StopRequest

SLOW_PHASES = 5
"""Limits that any phase but a step may take: the start with its compilation, a checkpoint, ..."""
SLOWER = 10
"""Times the longest step so far that a step may always take."""
LOOKS = 40
"""Looks at the progress within one limit."""
LONGEST_PAUSE_S = 10.0
GRACE_PAUSES = 3
"""Pauses between a rank's stacks and its end, in which the others write theirs."""


@dataclass
class Pace:
    """The time that a rank has gone without getting on, against its limit. Times in seconds."""

    limit_s: float
    phase: str = "start"
    idle_s: float = 0.0
    steps: int = 0
    longest_step_s: float = 0.0

    def enter(self, phase: str, now: float, before: float) -> None:
        """The rank got on at `now`; it had last done so at `before`."""
        if phase == self.phase == "step":
            self.steps += 1
            # The first step compiles, and is no measure for the others.
            if self.steps > 1:
                self.longest_step_s = max(self.longest_step_s, now - before)
        self.phase, self.idle_s = phase, 0.0

    @property
    def allowed_s(self) -> float:
        """Time without getting on after which the rank hangs."""
        if self.phase != "step" or self.steps == 0:
            return SLOW_PHASES * self.limit_s
        return max(self.limit_s, SLOWER * self.longest_step_s)

    def wait(self, elapsed_s: float, pause_s: float) -> None:
        """Count time in which the rank did not get on; of a longer one it was suspended itself."""
        self.idle_s += min(elapsed_s, 2 * pause_s)

    @property
    def hangs(self) -> bool:
        return self.idle_s > self.allowed_s


class Watchdog:
    """The watch over this rank, a `hpc.train.watch.Watch`.

    `end(kind, sentence)` ends the process: kind `hang` for a rank without progress, and `late` for
    one that was told to stop and reached no boundary within `stop_within_s`.
    """

    def __init__(
        self,
        stop: StopRequest,
        limit_s: float | None,
        stop_within_s: float,
        hang: Path,
        resumed: Callable[[int], None],
        end: Callable[[str, str], None],
    ) -> None:
        self._stop, self._end, self._resumed = stop, end, resumed
        self._hang = hang
        self._stop_within_s = stop_within_s
        self._pace = Pace(limit_s) if limit_s else None
        self._pause_s = min(LONGEST_PAUSE_S, (limit_s or LOOKS) / LOOKS, stop_within_s or 1.0)
        self._entered_at = time.monotonic()
        self._lock = threading.Lock()

    def start(self, signals: int) -> None:
        """Watch from now on; `signals` is the readable end of the pipe of `StopRequest.install`."""
        threading.Thread(target=self._watch, args=(signals,), name="watchdog", daemon=True).start()

    def resumed(self, step: int) -> None:
        """See `Watch`."""
        self._resumed(step)
        self.enter("step")

    def enter(self, phase: str) -> None:
        """See `Watch`."""
        now = time.monotonic()
        with self._lock:
            if self._pace:
                self._pace.enter(phase, now, self._entered_at)
            self._entered_at = now

    def _watch(self, signals: int) -> None:
        looked_at = time.monotonic()
        while True:
            if select.select([signals], [], [], self._pause_s)[0]:
                with contextlib.suppress(BlockingIOError):
                    for number in os.read(signals, 64):
                        self._stop.hear(number)
            now = time.monotonic()
            with self._lock:
                if self._pace:
                    self._pace.wait(now - looked_at, self._pause_s)
            looked_at = now
            self._look(now)

    def _look(self, now: float) -> None:
        heard = self._stop.heard_at
        if self._stop.requeue and heard is not None and now - heard > self._stop_within_s > 0:
            self._end(
                "late",
                f"it was told to stop, and neither a step nor an evaluation ended within "
                f"{self._stop_within_s:.0f} s",
            )
        pace = self._pace
        if pace is None:
            return
        # Where the interpreter itself is stuck, so is this thread, and then this timer is not.
        faulthandler.dump_traceback_later(pace.allowed_s + 2 * self._pause_s, exit=True)
        another = pace.idle_s > pace.limit_s / 2 and self._hang.exists()
        if pace.hangs or another:
            self._hang_up(pace)

    def _hang_up(self, pace: Pace) -> None:
        faulthandler.cancel_dump_traceback_later()
        what = f"{pace.phase} did not end" if pace.phase != "step" else "no step ended"
        sentence = f"{what} for {pace.idle_s:.0f} s (hang_timeout_s={pace.limit_s:g})"
        with contextlib.suppress(FileExistsError), self._hang.open("x") as file:
            file.write(f"{sentence}\n")
        print(f"Timeout: {sentence}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        time.sleep(GRACE_PAUSES * self._pause_s)
        self._end("hang", sentence)
