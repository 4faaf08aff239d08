"""The instances that each model wants for a load, in the bounds of a policy. Pure.

A host bears its knee with as many instances as the package has, the ones that a release measured.
Each one more adds `gain` of that knee, a number that the operator measured on the site's hosts;
with fewer it bears that share of it. A number is for the whole fleet, so the busiest place decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Loads = Mapping[str, Mapping[str, float]]
"""By place (a region, or a host) and model: the load that one host of it has, in knees as packaged.
"""


@dataclass(frozen=True)
class InstancePolicy:
    """Bounds of the instances of every model on a host."""

    least: int
    """Instances at least."""
    most: int
    """Instances at most; no host takes more than site.triton.max_instances."""
    gain: float
    """Share of the packaged knee that each further instance adds; 0: instances do not follow."""

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ValueError(f"least={self.least}: must be 1 to most, which is {self.most}")
        if not 0 <= self.gain <= 1:
            raise ValueError(f"gain={self.gain}: must be 0 to 1")

    @property
    def follows(self) -> bool:
        """True where instances follow the load."""
        return self.gain > 0


FIXED = InstancePolicy(1, 1, 0.0)
"""Instances stay as `fab scale` orders them."""


def speed(count: int, packaged: int, gain: float) -> float:
    """The knee of a host with `count` instances, as a share of the one with `packaged`."""
    if count < packaged:
        return count / packaged
    return 1 + gain * (count - packaged)


def wanted_instances(
    loads: Loads,
    counts: Mapping[str, int],
    packaged: Mapping[str, int],
    policy: InstancePolicy,
    target: float,
    hysteresis: float,
) -> dict[str, int]:
    """The instances of each model of `counts`, never outside the policy's bounds.

    The busiest place gets instances of its busiest model until no place is above `target`; then
    models give up instances as long as every place stays below `target` by the hysteresis. Asked
    again with the answer, under the same loads, it gives the same.
    """
    found = {model: max(policy.least, min(n, policy.most)) for model, n in counts.items()}

    def share(place: str, model: str, count: int) -> float:
        load = loads[place].get(model, 0.0)
        return load / speed(count, packaged[model], policy.gain)

    def total(place: str) -> float:
        return sum(share(place, model, count) for model, count in found.items())

    while loads:
        place = max(loads, key=total)
        able = [m for m, n in found.items() if n < policy.most and share(place, m, n) > 0]
        if total(place) <= target or not able:
            break
        found[max(able, key=lambda model: share(place, model, found[model]))] += 1
    low = target * (1 - hysteresis)
    for model in sorted(found, key=lambda one: max((share(p, one, 1) for p in loads), default=0)):
        while found[model] > policy.least:
            found[model] -= 1
            if any(total(place) > low for place in loads):
                found[model] += 1
                break
    return found
