"""The orders of operators to a running rollout, carried out where it may stop."""

from __future__ import annotations

import time

from serving.fleet.errors import FleetError
from serving.fleet.rollout.orders import Order, pending_order
from serving.fleet.rollout.rollout_run import RolloutRun

_GLANCE_S = 0.3


class Aborted(FleetError):
    """An operator had the rollout stop; it is undone."""


class OrderDesk:
    """The orders to one rollout, in turn. `promoted`: the rest goes without waiting and judging."""

    def __init__(self, run: RolloutRun) -> None:
        self.run = run
        self.promoted = False
        self._last = 0
        self._paused = self._approved = False

    def poll(self) -> None:
        """Take the orders that came; called while something is awaited. Raises Aborted, LeaseLost.

        A pause takes effect at the next boundary.
        """
        self.run.lease.check()
        while order := pending_order(self.run.journal.folder, self.run.rollout, self._last):
            self._last = order.number
            self._take(order)

    def boundary(self) -> None:
        """Stay here while the rollout is paused. Raises Aborted, LeaseLost."""
        self.poll()
        while self._paused and not self.promoted:
            time.sleep(_GLANCE_S)
            self.poll()

    def await_approval(self, percent: float) -> None:
        """Wait until an operator approves this step. Raises Aborted, LeaseLost."""
        self._approved = False
        self.run.record("awaiting", percent=percent)
        self.run.progress("fleet", "wait", f"{percent:g}% needs fab approve (rollout.approvals)")
        while not (self._approved or self.promoted):
            time.sleep(_GLANCE_S)
            self.boundary()

    def _take(self, order: Order) -> None:
        done = {"pause": "paused", "resume": "resumed", "approve": "approved",
                "promote": "promoted", "abort": "aborted"}[order.order]  # fmt: skip
        self.run.record(done, by=order.who, reason=order.reason)
        self.run.progress("fleet", done, f"by {order.who}: {order.reason}".rstrip(": "))
        if order.order == "abort":
            raise Aborted(f"aborted by {order.who}{f': {order.reason}' if order.reason else '.'}")
        if order.order in ("pause", "resume"):
            self._paused = order.order == "pause"
        self._approved |= order.order == "approve"
        self.promoted |= order.order == "promote"
