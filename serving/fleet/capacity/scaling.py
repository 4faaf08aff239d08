"""The number of hosts that a policy wants for a load. Pure: it changes nothing.

A load is counted in hosts at their knee: 2.5 keeps two hosts and a half at theirs. Between the
number that the load needs and the one that it would fill with the hysteresis, what is there stays;
so a load that swings by less than the hysteresis moves no host.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from serving.fleet.capacity.instance_decision import FIXED, InstancePolicy


@dataclass(frozen=True)
class ScheduledHosts:
    """At least so many hosts at hours of the day, UTC, such as 13 to 22; over midnight too."""

    from_hour: int
    """First hour."""
    to_hour: int
    """Hour at which it ends."""
    hosts: int
    """Hosts that must be there."""

    def __post_init__(self) -> None:
        for name in ("from_hour", "to_hour"):
            if not 0 <= getattr(self, name) <= 24:
                raise ValueError(f"{name}={getattr(self, name)}: must be 0 to 24")

    def covers(self, hour: int) -> bool:
        """True at this hour of the day."""
        if self.from_hour <= self.to_hour:
            return self.from_hour <= hour < self.to_hour
        return hour >= self.from_hour or hour < self.to_hour


@dataclass(frozen=True)
class ScalePolicy:
    """Bounds and aims of the number of hosts in a region."""

    least: int
    """Hosts at least."""
    most: int
    """Hosts at most."""
    target: float
    """Share of a host's knee that the load may use."""
    hysteresis: float
    """Share below the target that the load must fall before a host is taken out."""
    cool_down_s: float
    """Seconds after a change in which there is no other."""
    schedule: tuple[ScheduledHosts, ...] = ()
    """Hosts at hours of the day."""
    instances: InstancePolicy = FIXED
    """Instances of each model on a host."""

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ValueError(f"least={self.least}: must be 1 to most, which is {self.most}")
        if not 0 < self.target <= 1:
            raise ValueError(f"target={self.target}: must be above 0 and at most 1")
        if not 0 <= self.hysteresis < 1:
            raise ValueError(f"hysteresis={self.hysteresis}: must be 0 to below 1")
        if self.cool_down_s < 0:
            raise ValueError(f"cool_down_s={self.cool_down_s}: must not be negative")


@dataclass(frozen=True)
class ScaleDecision:
    """The number of hosts to have, and why, for people.

    `waiting` is the number that the cool-down holds back, None where it holds back none.
    """

    hosts: int
    reason: str
    waiting: int | None = None


def scale_decision(
    policy: ScalePolicy, hosts: int, load: float, since_change_s: float, hour: int
) -> ScaleDecision:
    """The hosts for a load, never outside the bounds of the policy.

    `load` is in hosts at their knee, `since_change_s` the time since the last change, `hour` that
    of the day in UTC. What is outside the bounds or the schedule does not wait for the cool-down.
    """
    least = least_hosts(policy, hour)
    needed = _bounded(math.ceil(load / policy.target), least, policy.most)
    roomy = load / (policy.target * (1 - policy.hysteresis))
    wanted = _bounded(hosts, needed, _bounded(math.ceil(roomy), least, policy.most))
    if not least <= hosts <= policy.most:
        return ScaleDecision(wanted, f"{hosts} hosts are outside {least} to {policy.most}")
    if wanted == hosts:
        return ScaleDecision(hosts, "the number of hosts is right")
    why = f"a load of {load:.3g} hosts at their knee needs {wanted} at {policy.target:.0%} of it"
    if since_change_s < policy.cool_down_s:
        ago = f"{why}; waiting, the last change was {since_change_s:.0f} s ago"
        return ScaleDecision(hosts, ago, wanted)
    return ScaleDecision(wanted, why)


def least_hosts(policy: ScalePolicy, hour: int) -> int:
    """The hosts that must be there at an hour of the day, UTC."""
    return min(policy.most, max([policy.least, *_scheduled(policy.schedule, hour)]))


def _scheduled(schedule: Iterable[ScheduledHosts], hour: int) -> list[int]:
    return [one.hosts for one in schedule if one.covers(hour)]


def _bounded(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))
