"""The way of a package to all hosts: into each region once from here, and on from host to host.

The first host of a region gets it from the controller. When it has verified it, the others fetch
from it what they lack, a few at a time, and each that is done is a source for the next. A source
that fails is left out, and after two the controller sends itself: slower, and never stuck. Hosts
are staged in threads of their own; those that must wait for a source do so here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.fleet.errors import FleetError, Unreachable
from serving.fleet.inventory import Host
from serving.fleet.rollout.lease import LeaseLost
from serving.fleet.shipment import Shipment
from serving.fleet.ssh import transfer
from serving.fleet.ssh.transfer import Arrival, TransferLimits
from serving.fleet.ssh.verbs import HostVerbs

_ASKING_S = 10.0
"""Longest wait for other hosts' answers before the controller sends."""
_TRIES = 2
"""Sources that a host tries before the controller sends to it."""


@dataclass
class _Source:
    """A host that has the package, and how many fetch from it now."""

    name: str
    verbs: HostVerbs
    fetching: int = 0
    offering: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class _RegionFlow:
    """The sources of one package in one region, and whether the controller sends to one now.

    `asked` hosts have not yet answered whether they have the package already.
    """

    sources: list[_Source] = field(default_factory=list)
    seeding: bool = False
    asked: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)


class FanOut:
    """The transfers of one rollout. At most `fetches` hosts fetch from one host at a time.

    With 0 the controller sends everything itself, for sites whose hosts do not reach each other.
    """

    def __init__(self, fetches: int) -> None:
        self._fetches = fetches
        self._flows: dict[tuple[str, str], _RegionFlow] = {}
        self._lock = threading.Lock()
        self.sent_bytes = 0
        """Bytes that the controller sent to all hosts until now."""

    def stage(
        self,
        host: Host,
        verbs: HostVerbs,
        shipment: Shipment,
        limits: TransferLimits,
        rollback: bool,
    ) -> Arrival:
        """Have the verified package in the host's `packages/`, by the shortest way there is.

        Raises NoRoom, PackageRefused, LeaseLost, Unreachable, FleetError: those of this host only.
        """
        flow = self._flow(shipment, host)
        with flow.changed:
            flow.asked += 1
        try:
            ready = transfer.is_ready(verbs, shipment, limits, rollback)
        finally:
            with flow.changed:
                flow.asked -= 1
                flow.changed.notify_all()
        if ready:
            arrival = Arrival("already there and verified")
        else:
            arrival = self._bring(host, verbs, shipment, limits, rollback, flow)
        with self._lock:
            self.sent_bytes += arrival.sent_bytes
        with flow.changed:
            flow.sources.append(_Source(host.name, verbs))
            flow.changed.notify_all()
        return arrival

    def _bring(
        self,
        host: Host,
        verbs: HostVerbs,
        shipment: Shipment,
        limits: TransferLimits,
        rollback: bool,
        flow: _RegionFlow,
    ) -> Arrival:
        tried: list[str] = []
        while True:
            source = self._take(flow, tried)
            try:
                if source is None:
                    return transfer.send(verbs, shipment, limits, rollback)
                if _offered(source, shipment, host):
                    return transfer.fetch(verbs, shipment, limits, rollback, source.name)
            except (LeaseLost, Unreachable):
                raise
            except FleetError:
                if source is None:
                    raise
            finally:
                _give_back(flow, source)
            tried.append(source.name)

    def _take(self, flow: _RegionFlow, tried: Sequence[str]) -> _Source | None:
        """A source with room, None when the controller is to send. Waits for either."""
        with flow.changed:
            # One that has the package already, of an interrupted rollout, spares sending it again.
            flow.changed.wait_for(lambda: flow.sources or not flow.asked, _ASKING_S)
            while True:
                fit = [source for source in flow.sources if source.name not in tried]
                if not self._fetches or len(tried) >= _TRIES or (flow.sources and not fit):
                    return None
                least = min(fit, key=lambda source: source.fetching, default=None)
                if least is not None and least.fetching < self._fetches:
                    least.fetching += 1
                    return least
                if least is None and not flow.seeding:
                    flow.seeding = True
                    return None
                flow.changed.wait()

    def _flow(self, shipment: Shipment, host: Host) -> _RegionFlow:
        with self._lock:
            return self._flows.setdefault((shipment.digest, host.region), _RegionFlow())


def _offered(source: _Source, shipment: Shipment, host: Host) -> bool:
    """True when the source lets `host` read the package. A source that fails is none."""
    try:
        with source.offering:
            source.verbs.call("offer", shipment.model, shipment.version, host.name)
    except LeaseLost:
        raise
    except FleetError:
        return False
    return True


def _give_back(flow: _RegionFlow, source: _Source | None) -> None:
    with flow.changed:
        if source is None:
            flow.seeding = False
        else:
            source.fetching -= 1
        flow.changed.notify_all()
