"""The order in which hosts are changed: one canary, then waves, never too many of one region."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TypeVar

from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Fleet, Host
from serving.fleet.rollout.records import Before
from serving.fleet.rollout.rollout_config import RolloutConfig, host_count


class HostWork(Protocol):
    """Work on one host."""

    @property
    def host(self) -> Host:
        """The host to change."""

    @property
    def before(self) -> Before:
        """The host as it was."""

    @property
    def down(self) -> bool:
        """True where its Triton does not answer."""


Work = TypeVar("Work", bound=HostWork)


def waves(
    fleet: Fleet, changes: Sequence[Work], config: RolloutConfig
) -> tuple[tuple[Work, ...], ...]:
    """`changes` in waves of `rollout.waves`, then of `rollout.parallel` hosts at most.

    No wave has more hosts of a region than `rollout.max_unavailable`, nor all of them. The canary
    is a host that serves, where there is one: a stopped one is no sample of the fleet.
    """
    left = sorted(changes, key=lambda change: _rank(change.host, config.order))
    total, made = len(left), list[tuple[Work, ...]]()
    while left:
        wave: list[Work] = []
        size = _wave_size(len(made), total, config)
        in_region: Counter[str] = Counter()
        if not made:
            serving = [change for change in left if _serves(change)]
            wave.append((serving or left)[0])
            left.remove(wave[0])
            made.append(tuple(wave))
            continue
        for change in list(left):
            region = fleet.region_of(change.host)
            most = host_count(config.max_unavailable, len(region.hosts))
            most = max(min(most, len(region.hosts) - 1), 1)
            if len(wave) < size and in_region[region.name] < most:
                wave.append(change)
                left.remove(change)
                in_region[region.name] += 1
        made.append(tuple(wave))
    return tuple(made)


def by_turns(hosts: Sequence[Host]) -> list[Host]:
    """The hosts with the first of each region first, then the second of each, and so on."""
    place: dict[str, int] = {}
    turns = []
    for host in hosts:
        turns.append((place.setdefault(host.region, 0), host))
        place[host.region] += 1
    return [host for _, host in sorted(turns, key=lambda turn: turn[0])]


def _wave_size(number: int, total: int, config: RolloutConfig) -> int:
    # The canary is wave 0; rollout.waves are those behind it.
    sizes = config.waves
    return host_count(sizes[number - 1], total) if 0 < number <= len(sizes) else config.parallel


def _serves(change: HostWork) -> bool:
    return not change.down and change.before.edge == READY


def _rank(host: Host, order: Sequence[str]) -> int:
    """The place of the host, or of its region, in `rollout.order`; those not named come last."""
    places = [order.index(name) for name in (host.name, host.region) if name in order]
    return min(places, default=len(order))
