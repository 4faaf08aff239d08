"""The hosts of a region that take traffic, and those on standby that may: how many, and which.

A host on standby is no fault and no plan of a rollout: it runs on with what it had, and is brought
to production and proven on its way in. Only hosts that `fab scale` took out come in by it again:
one that a person drained or quarantined has a reason to be out.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

from serving.fleet.errors import FleetError, FleetRefusal
from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Host, Region
from serving.fleet.rollout.lease import LeaseLost, Locked
from serving.fleet.rollout.rollout_run import Progress


@dataclass(frozen=True)
class HostMoves:
    """`out` leave the traffic, in this order; `missing` of `reserve` are to take it, the first ones
    that turn out to be fit."""

    out: tuple[Host, ...]
    reserve: tuple[Host, ...]
    missing: int


def choose_hosts(
    region: Region,
    wanted: int,
    edges: Mapping[str, str],
    standby: Container[str],
    quarantined: Container[str],
) -> HostMoves:
    """The moves after which `wanted` hosts of the region take traffic; `edges` are their states.

    The last of the site's list goes first, and comes back last. A host on standby that its edge
    still gives requests was left so by a controller that was killed: it comes in first, or goes
    out again. Raises FleetRefusal where the region has too few, FleetError for an edge that cannot
    be read.
    """
    unread = [host.name for host in region.hosts if host.name not in edges]
    if unread:
        raise FleetError(
            f"an edge of {region.name} does not answer: nobody knows whether {', '.join(unread)} "
            "take traffic. Nothing was changed. See fab status."
        )
    ready = [host for host in region.hosts if edges[host.name] == READY]
    taking = [h for h in ready if h.name not in standby and h.name not in quarantined]
    waiting = [host for host in region.hosts if host.name in standby]
    reserve = sorted(waiting, key=lambda host: host not in ready)
    missing = wanted - len(taking)
    if wanted < 1 or missing > len(reserve):
        raise FleetRefusal(_too_few(region, wanted, taking, reserve))
    left = [host for host in reserve[max(missing, 0) :] if host in ready]
    surplus = list(reversed(taking))[: max(-missing, 0)]
    return HostMoves((*left, *surplus), tuple(reserve), max(missing, 0))


def bring_in(
    moves: HostMoves, admit: Callable[[Host], None], progress: Progress
) -> tuple[list[str], dict[str, str]]:
    """Admit hosts of the reserve until none is missing: those that came in, and the reason for
    each that is not fit and stays out. Raises LeaseLost, Locked."""
    admitted: list[str] = []
    unfit: dict[str, str] = {}
    for host in moves.reserve:
        if len(admitted) == moves.missing:
            break
        try:
            admit(host)
        except (LeaseLost, Locked):
            raise
        except FleetError as error:
            # The next of the reserve may be fit; this one is named at the end.
            progress(host.name, "out", str(error))
            unfit[host.name] = str(error)
        else:
            admitted.append(host.name)
    return admitted, unfit


def _too_few(region: Region, wanted: int, taking: list[Host], reserve: list[Host]) -> str:
    if wanted < 1:
        return (
            f"{region.name} keeps one host in traffic at least. Nothing was changed. Type: "
            f"fab scale --hosts 1 --region {region.name}"
        )
    most = len(taking) + len(reserve)
    others = [host.name for host in region.hosts if host not in (*taking, *reserve)]
    out = (
        f" Out of traffic for another reason: {', '.join(others)} (fab status, fab undrain HOST)."
        if others
        else ""
    )
    return (
        f"{region.name} has {len(taking)} hosts in traffic and {len(reserve)} on standby: {most} "
        f"at most can take it, not {wanted}.{out} Nothing was changed. A new one: fab add HOST "
        f"--address ADDRESS --region {region.name}, then fab bootstrap HOST"
    )
