"""The holder of the fleet as readers see it: they watch it count, and take nothing."""

from __future__ import annotations

import time
from pathlib import Path

from serving.fleet.rollout.holder import (
    LEASE,
    Holder,
    LeaseSign,
    free,
    holder_in,
    is_alive,
    read_lease,
    this_boot,
)


class HolderWatch:
    """The lease of one journal folder, watched since this was made."""

    def __init__(self, folder: Path, ttl_s: float) -> None:
        self.path, self.ttl_s = folder / LEASE, ttl_s
        self._sign = LeaseSign(read_lease(self.path), time.monotonic())

    def holder(self) -> Holder | None:
        """The controller at work, None for none that lives; a person's lock is no controller.

        One of another machine counts as alive until it has been still for its time to live.
        """
        now = time.monotonic()
        self._sign = self._sign.after(read_lease(self.path), now)
        found = holder_in(self._sign.content, self.ttl_s)
        if found is None or found.reason:
            return None
        dead = free(found, now - self._sign.since, this_boot(), is_alive(found))
        return None if dead else found

    def quiet_s(self) -> float:
        """Seconds that we watched it without a sign of life; a living one shows one each second."""
        return time.monotonic() - self._sign.since

    def lives(self) -> bool:
        """True while a controller is at work."""
        return self.holder() is not None
