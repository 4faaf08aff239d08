"""The judge that a rollout calls at each step: gather, then judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from serving.fleet.canary.analysis import judge_canary
from serving.fleet.canary.gathering import (
    ProbedFleet,
    PrometheusReader,
    gather,
    probed_hosts,
)
from serving.fleet.canary.limits import CanaryLimits
from serving.fleet.canary.verdict import Verdict
from serving.fleet.inventory import Host


def probing_judge(
    fleet: ProbedFleet, limits: CanaryLimits, prometheus: PrometheusReader | None = None
) -> Callable[[int, int | None, tuple[Host, ...], float, Callable[[], None]], Verdict]:
    """`judge(canary, baseline, hosts, seconds, poll)` by golden questions on some of `hosts`.

    `hosts` have both versions loaded. `poll` is called about five times a second, and raises to
    stop the watch. An inconclusive verdict has waited for `limits.wait_s` already. A version that
    passed once needs `limits.later_probes` from then on.
    """
    passed: set[int] = set()

    def judge(
        canary: int,
        baseline: int | None,
        hosts: tuple[Host, ...],
        seconds: float,
        poll: Callable[[], None],
    ) -> Verdict:
        probes = limits.later_probes if canary in passed else limits.min_probes
        wanted = replace(limits, min_probes=probes)
        asked = probed_hosts(hosts, limits.hosts)
        evidence = gather(fleet, asked, canary, baseline, seconds, wanted, poll, prometheus)
        verdict = judge_canary(evidence, wanted)
        if verdict.outcome == "pass":
            passed.add(canary)
        return verdict

    return judge
