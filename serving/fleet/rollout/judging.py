"""The judgement on a version that has a share of the traffic, by the edges' own counters.

`Judge` is what a rollout calls at each step; `serving.fleet.canary` has the one with golden
questions, latency and memory.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.fleet.canary.verdict import Verdict
from serving.fleet.inventory import Host
from serving.fleet.rollout.driver import FleetDriver
from serving.fleet.routing import VersionCounters

Judge = Callable[[int, int | None, tuple[Host, ...], float, Callable[[], None]], Verdict]
"""`judge(canary, baseline, hosts, seconds, poll)`: watches for about `seconds`, calls `poll` at
least twice a second, which raises to stop, and returns the verdict."""


def counters_judge(
    driver: FleetDriver, max_errors: int, pause: Callable[[float, Callable[[], None]], None]
) -> Judge:
    """A judge that bears `max_errors` failed answers of the canary while it is watched.

    No traffic is no evidence against it: it was proven by golden questions on each host.
    """

    def judge(
        canary: int,
        baseline: int | None,
        hosts: tuple[Host, ...],
        seconds: float,
        poll: Callable[[], None],
    ) -> Verdict:
        none = VersionCounters(0, 0)
        before = driver.counters().get(canary, none)
        pause(seconds, poll)
        seen = driver.counters().get(canary, none).since(before)
        sentence = (
            f"{seen.errors} of {seen.requests} requests to version {canary} failed "
            f"(rollout.max_errors is {max_errors})."
        )
        numbers = {"requests": float(seen.requests), "errors": float(seen.errors)}
        return Verdict("fail" if seen.errors > max_errors else "pass", (sentence,), numbers)

    return judge
