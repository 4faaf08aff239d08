"""A client of a bare fleet's edge that asks without pause, and counts what it got."""

from __future__ import annotations

import threading
import time

from tests.serving.fleet.nspawn.bare_fleet import BareFleet


class Clients:
    """One client that asks the edge without pause; what it got, in numbers."""

    def __init__(self, fleet: BareFleet) -> None:
        self.fleet, self.sent, self.failed, self.wrong = fleet, 0, 0, []  # type: ignore[var-annotated]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Clients:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            self.sent += 1
            try:
                answer = self.fleet.ask(1.0)
                if answer not in (2.0, 3.0):
                    self.wrong.append(answer)
            except OSError:
                self.failed += 1
            time.sleep(0.05)

    def __repr__(self) -> str:
        return f"{self.failed} of {self.sent} failed"
