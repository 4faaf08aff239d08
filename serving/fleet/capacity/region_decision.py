"""The hosts that a region shall have now, of its load, its hosts and the policy. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from serving.fleet.capacity.demand import Demand
from serving.fleet.capacity.scaling import ScalePolicy, scale_decision


@dataclass(frozen=True)
class RegionHosts:
    """The hosts of a region: `serving` take traffic, `there` are those and the ones on standby."""

    serving: int
    there: int


@dataclass(frozen=True)
class RegionDecision:
    """The hosts that a region shall have: `target`, which is `serving` where nothing is to be done.

    `load` is None where no decision was possible; `reason` then has what is not known. `missing`
    are hosts that the policy wants beyond those that are there. `into` and `out` are the hosts to
    bring in and to take out where that is not left to `fab scale`.
    """

    region: str
    serving: int
    there: int
    load: float | None
    target: int
    missing: int
    reason: str
    into: tuple[str, ...] = ()
    out: tuple[str, ...] = ()


def decide_region(
    region: str,
    hosts: RegionHosts | str,
    found: Demand,
    doubt: str,
    policy: ScalePolicy,
    since_change_s: float,
    hour: int,
) -> RegionDecision:
    """The decision of one round.

    `hosts` is a sentence where nobody knows them. `doubt` is one where the load may be higher than
    counted, else "": then no host is taken out.
    """
    if isinstance(hosts, str):
        return RegionDecision(region, 0, 0, None, 0, 0, "; ".join((hosts, *found.unknown)))
    if found.load is None:
        return RegionDecision(
            region, hosts.serving, hosts.there, None, hosts.serving, 0, "; ".join(found.unknown)
        )
    decision = scale_decision(policy, hosts.serving, found.load, since_change_s, hour)
    wanted, target, reason = decision.waiting or decision.hosts, decision.hosts, decision.reason
    if target < hosts.serving and doubt:
        target, reason = hosts.serving, f"{reason}; not done, {doubt}"
    return RegionDecision(
        region, hosts.serving, hosts.there, found.load, min(target, hosts.there),
        max(0, wanted - hosts.there), reason,
    )  # fmt: skip


def counting_doubt(counted_per_s: float | str, answered_per_s: float | str) -> str:
    """A sentence where the requests in the edges' log are not those that hosts answered; else "".

    A log that does not arrive looks like a load that went away. Half is enough: lines are lost when
    the exporter restarts, and answers are counted that are no inference.
    """
    if isinstance(answered_per_s, str):
        return f"nobody knows how much its hosts answered: {answered_per_s}"
    if isinstance(counted_per_s, str):
        return f"nobody knows how much its edges logged: {counted_per_s}"
    if counted_per_s < answered_per_s / 2:
        return (
            f"its hosts answered {answered_per_s:.3g} requests/s, and the log of its edges has "
            f"{counted_per_s:.3g}"
        )
    return ""
