"""The hosts of a region that shall take traffic where models have hosts of their own. Pure.

A model's requests go in equal parts to those of its hosts that take traffic, so a host's load is
the sum of its models' parts. Hosts come in while one is above the target, the one first that helps
most; they go out while every host stays below it by the hysteresis. What went out so is never what
a load that stays the same brings in again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from serving.fleet.capacity.region_decision import RegionDecision
from serving.fleet.capacity.scaling import ScalePolicy, least_hosts


@dataclass(frozen=True)
class PlacedHosts:
    """The hosts of a region in the site's order: those that take traffic, those on standby, and
    the hosts of each model."""

    taking: tuple[str, ...]
    waiting: tuple[str, ...]
    of_model: Mapping[str, Collection[str]]


def host_loads(
    taking: Collection[str], of_model: Mapping[str, Collection[str]], loads: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """The part of each model's load that each host has, in hosts at their knee."""
    found: dict[str, dict[str, float]] = {host: {} for host in taking}
    for model, hosts in of_model.items():
        own = [host for host in taking if host in hosts]
        for host in own:
            found[host][model] = loads.get(model, 0.0) / len(own)
    return found


def decide_placed(
    region: str,
    hosts: PlacedHosts,
    loads: Mapping[str, float],
    doubt: str,
    policy: ScalePolicy,
    since_change_s: float,
    hour: int,
) -> RegionDecision:
    """The decision of one round; `loads` are those of the models, in hosts at their knee.

    Each model keeps `policy.least` of its hosts, or all where it has fewer. `doubt` is a sentence
    where the load may be higher than counted, else "": then no host is taken out.
    """
    least = least_hosts(policy, hour)

    def shares(taking: Sequence[str]) -> list[float]:
        return [sum(one.values()) for one in host_loads(taking, hosts.of_model, loads).values()]

    def overload(taking: Sequence[str]) -> float:
        gone = [m for m, own in hosts.of_model.items() if loads.get(m) and not {*own} & {*taking}]
        return sum(max(0.0, one - policy.target) for one in shares(taking)) + len(gone) * 1e9

    def whole(taking: Sequence[str]) -> bool:
        kept = (
            (len({*own} & {*taking}), min(policy.least, len(own)))
            for own in hosts.of_model.values()
        )
        return len(taking) >= least and all(n >= fewest for n, fewest in kept)

    taking = list(hosts.taking)
    into: list[str] = []
    out: list[str] = []
    free = list(hosts.waiting)
    while free and len(taking) < policy.most:
        best = min(free, key=lambda host: overload([*taking, host]))
        few = not whole(taking)
        if not few and not overload([*taking, best]) < overload(taking):
            break
        if few:
            best = max(free, key=lambda host: sum(host in own for own in hosts.of_model.values()))
        free.remove(best)
        taking.append(best)
        into.append(best)
    low = policy.target * (1 - policy.hysteresis)
    for host in [] if into else reversed(hosts.taking):
        left = [one for one in taking if one != host]
        crowded = len(taking) > policy.most and all({*o} & {*left} for o in hosts.of_model.values())
        if crowded or (whole(left) and max(shares(left), default=0.0) <= low):
            taking, out = left, [*out, host]
    serving, there = len(hosts.taking), len(hosts.taking) + len(hosts.waiting)
    missing = math.ceil(min(overload(taking), 1e6) / policy.target)
    load = sum(loads.values())
    reason = "the hosts are right"
    if into or out:
        moved = f"{', '.join(into)} to come in" if into else f"{', '.join(out)} to go out"
        fullest = max(shares(hosts.taking), default=0.0)
        reason = f"the fullest host is at {fullest:.0%} of its knee, {policy.target:.0%} is the aim"
        reason += f": {moved}"
    bound = whole(hosts.taking) and serving <= policy.most
    if (into or out) and bound and since_change_s < policy.cool_down_s:
        reason += f"; waiting, the last change was {since_change_s:.0f} s ago"
        into, out = [], []
    if out and doubt:
        reason, out = f"{reason}; not done, {doubt}", []
    return RegionDecision(
        region, serving, there, load, serving + len(into) - len(out), missing, reason,
        tuple(into), tuple(out),
    )  # fmt: skip
