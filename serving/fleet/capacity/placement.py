"""Models on hosts by memory and load: first fit, the largest first, and what is there stays.

In each region a model gets so many hosts that its peak fills none above what a host may carry, and
`least` at least. Hosts that it has are kept as long as they fit it; a model comes to another one,
or gives one up, only where memory, load or isolation say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from conf.site_placement import Isolation

_ROUNDING = 1e-9


@dataclass(frozen=True)
class ModelDemand:
    """One model: bytes on each of its hosts, and by region its peak in hosts' worth (the peak over
    the knee of one host). `hosts` are those that it has now."""

    name: str
    memory_bytes: int
    load: Mapping[str, float] = field(default_factory=dict)
    isolation: Isolation = "shared"
    least: int = 1
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostRoom:
    """One host: bytes for models, and the share of its knee that their peaks may use together."""

    name: str
    region: str
    memory_bytes: int
    load: float = 1.0


@dataclass(frozen=True)
class Assignment:
    """Hosts by model, in the order of the hosts; `missing` has a sentence for each model and region
    for which there is no room, and `hosts` then counts for nothing."""

    hosts: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...] = ()


def place(models: Sequence[ModelDemand], hosts: Sequence[HostRoom]) -> Assignment:
    """The hosts of each model, region by region."""
    found: dict[str, list[str]] = {model.name: [] for model in models}
    missing: list[str] = []
    for region in dict.fromkeys(host.region for host in hosts):
        own = [host for host in hosts if host.region == region]
        placed = _placed(region, models, own)
        for name, names in placed.hosts.items():
            found[name] += names
        missing += placed.missing
    return Assignment({name: tuple(names) for name, names in found.items()}, tuple(missing))


def hosts_needed(model: ModelDemand, region: str, carried: float) -> int:
    """Hosts that the model needs in a region, each of which carries `carried` of its knee."""
    load = model.load.get(region, 0.0)
    return max(model.least, math.ceil(load / carried - _ROUNDING))


def _placed(region: str, models: Sequence[ModelDemand], hosts: Sequence[HostRoom]) -> Assignment:
    """The first of three tries that has a place for all: beside what the others have; without
    regard to that; and without regard to what anybody has."""
    tries: list[Callable[[], Assignment]] = [
        lambda: _first_fit(region, models, hosts, keep=True, wait=True),
        lambda: _first_fit(region, models, hosts, keep=True, wait=False),
        lambda: _first_fit(region, models, hosts, keep=False, wait=False),
    ]
    for attempt in tries:
        found = attempt()
        if not found.missing:
            break
    return found


class _Rooms:
    """The hosts of one region while they fill: models by host, with the share of each."""

    def __init__(self, hosts: Sequence[HostRoom]) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.taken: dict[str, dict[str, tuple[ModelDemand, float]]] = {
            host.name: {} for host in hosts
        }

    def put(self, model: ModelDemand, names: Iterable[str], share: float) -> None:
        for name in names:
            self.taken[name][model.name] = (model, share)

    def clear(self, model: ModelDemand) -> None:
        for taken in self.taken.values():
            taken.pop(model.name, None)

    def free_bytes(self, name: str) -> int:
        used = sum(model.memory_bytes for model, _ in self.taken[name].values())
        return self.hosts[name].memory_bytes - used

    def fits(self, model: ModelDemand, name: str, share: float) -> bool:
        others = [one for one in self.taken[name].values() if one[0].name != model.name]
        if others and model.isolation == "alone":
            return False
        if any(one.isolation == "alone" for one, _ in others):
            return False
        used = sum(one.memory_bytes for one, _ in others)
        load = sum(one for _, one in others)
        host = self.hosts[name]
        return used + model.memory_bytes <= host.memory_bytes and load + share <= host.load * (
            1 + _ROUNDING
        )


def _first_fit(
    region: str, models: Sequence[ModelDemand], hosts: Sequence[HostRoom], keep: bool, wait: bool
) -> Assignment:
    """`keep`: a model stays on the hosts that it has. `wait`: it comes to no host whose room a
    model that has its turn later takes now."""
    settled, planned = _Rooms(hosts), _Rooms(hosts)
    has = {
        model.name: [h.name for h in hosts if keep and h.name in model.hosts] for model in models
    }
    if wait:
        for model in models:
            count = _counts(region, model, hosts, len(has[model.name]))[0]
            planned.put(model, has[model.name], model.load.get(region, 0.0) / max(count, 1))
    found: dict[str, tuple[str, ...]] = {}
    missing: list[str] = []
    for model in sorted(models, key=lambda one: _size(region, one, hosts), reverse=True):
        own = has[model.name]
        for count in _counts(region, model, hosts, len(own)):
            share = model.load.get(region, 0.0) / count
            stay = [name for name in own if settled.fits(model, name, share)]
            come = [
                name for name in settled.hosts if name not in own
                and settled.fits(model, name, share) and planned.fits(model, name, share)
            ]  # fmt: skip
            if len(stay) + len(come) >= count:
                chosen = set([*stay, *come][:count])
                found[model.name] = tuple(name for name in settled.hosts if name in chosen)
                break
        else:
            missing.append(_lack(region, model, hosts, settled))
            continue
        for rooms in (settled, planned):
            rooms.clear(model)
            rooms.put(model, found[model.name], share)
    return Assignment(found, tuple(missing))


def _counts(region: str, model: ModelDemand, hosts: Sequence[HostRoom], now: int) -> list[int]:
    """Numbers of hosts to try: the one it has, as far as that is enough; then more; then fewer."""
    needed = hosts_needed(model, region, max(host.load for host in hosts))
    wanted = max(needed, now)
    counts = [
        *range(wanted, len(hosts) + 1),
        *range(min(wanted, len(hosts) + 1) - 1, needed - 1, -1),
    ]
    return counts or [needed]


def _size(region: str, model: ModelDemand, hosts: Sequence[HostRoom]) -> tuple[bool, float, str]:
    """The order of first fit: who is alone first, then by the greater of the parts that it takes of
    the region: of the memory for one copy, of the load for all."""
    memory = model.memory_bytes / max(sum(host.memory_bytes for host in hosts), 1)
    load = model.load.get(region, 0.0) / max(sum(host.load for host in hosts), _ROUNDING)
    return model.isolation == "alone", max(memory, load), model.name


def _lack(region: str, model: ModelDemand, hosts: Sequence[HostRoom], rooms: _Rooms) -> str:
    needed = hosts_needed(model, region, max(host.load for host in hosts))
    peak = model.load.get(region, 0.0)
    alone = " with no other model" if model.isolation == "alone" else ""
    wants = f"{model.name} needs {needed} of the {len(hosts)} hosts of {region}{alone}"
    wants += f", {gib(model.memory_bytes)} on each" + (
        f" for {peak:.3g} hosts' load" if peak else ""
    )
    free = ", ".join(
        f"{name} {gib(max(rooms.free_bytes(name), 0))} free and "
        f"{', '.join(taken) or 'no model'} on it"
        for name, taken in rooms.taken.items()
    )
    return f"{wants}; the larger ones leave: {free}."


def gib(count: int) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.2g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"
