"""The hosts of each model: `site.placement`, its checks, and what follows from it.

A model that has no entry is on every host that no `alone` model has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from conf.names import NAME, nearest
from conf.site_checks import check_distinct

Isolation = Literal["shared", "alone"]


@dataclass(frozen=True)
class ModelPlacement:
    """The hosts of one model."""

    hosts: tuple[str, ...]
    """Names of the hosts that serve it, in every region one at least."""
    isolation: Isolation = "shared"
    """alone: no other model is on its hosts; shared: others may be."""


Placement = Mapping[str, ModelPlacement]


def check_placement(placement: Placement, regions: Mapping[str, str]) -> None:
    """Raise ValueError for a placement that cannot be; `regions` are those of the hosts by name."""
    for model, one in placement.items():
        key = f"placement.{model}"
        if not NAME.fullmatch(model) or len(model) > 64:
            raise ValueError(f"{key}: is not the name of a model")
        for host in one.hosts:
            if host not in regions:
                raise ValueError(f"{key}.hosts: there is no host {host}. {nearest(host, regions)}")
        check_distinct({f"{key}.hosts[{n}]": host for n, host in enumerate(one.hosts)})
        served = {regions[host] for host in one.hosts}
        for region in dict.fromkeys(regions.values()):
            if region not in served:
                raise ValueError(
                    f"{key}.hosts: has no host of {region}: its clients would get no answer there"
                )
    for model, one in placement.items():
        for other, beside in placement.items():
            shared = set(one.hosts) & set(beside.hosts)
            if one.isolation == "alone" and other != model and shared:
                raise ValueError(
                    f"placement.{other}.hosts: has {min(shared)}, where {model} is to be alone"
                )


def hosts_alone(placement: Placement) -> frozenset[str]:
    """The hosts that an `alone` model has."""
    return frozenset(
        host for one in placement.values() if one.isolation == "alone" for host in one.hosts
    )


def hosts_of(placement: Placement, model: str, hosts: Iterable[str]) -> tuple[str, ...]:
    """Those of `hosts` that have `model`, in their order."""
    own = placement[model].hosts if model in placement else None
    taken = hosts_alone(placement)
    return tuple(host for host in hosts if (host not in taken if own is None else host in own))


def peers_of_host(
    placement: Placement, host: str, hosts: Iterable[str]
) -> tuple[frozenset[str], ...]:
    """For each group of models that `host` has, the others of `hosts` that have them too.

    A group is one placed model, or all that have no entry: a host may go only where each keeps one.
    """
    listed = frozenset((*hosts, host))
    shared = listed - hosts_alone(placement)
    groups = [listed & frozenset(one.hosts) for one in placement.values()]
    return tuple(group - {host} for group in [shared, *groups] if host in group)
