"""The driver interface of the rollout engine; `ssh.ssh_driver` implements it for real hosts.

Reading and changing are apart: `read_host` and `peers_up` change nothing; every change may be done
twice. Tests run the same rollout against a simulated fleet with every step failing in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from serving.fleet.canary.evidence import ProbeSample
from serving.fleet.inventory import Host
from serving.fleet.routing import Routing, VersionCounters
from serving.fleet.shipment import Shipment


@dataclass(frozen=True)
class HostVerification:
    """The last time a host verified all it has, as UTC time in ISO form, and what it found wrong.

    Each fault is a sentence; there are none when `ok`.
    """

    at: str
    ok: bool
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostState:
    """One host as it is now, for one model.

    `serving` are the versions its Triton answers for, `config` the text that a restarted Triton
    would start from, `packages` the digest of each verified package on it, `highest` the highest
    version that it ever accepted (None where it keeps no such number). `edge` is the state set in
    HAProxy (ready, drain, maint), `up` the verdict of its checks. `alive` is false when its Triton
    does not answer at all. `verification` is the host's last one of everything, None before the
    first. `odd` are names found on the host that are none of a version. `problem` is a sentence
    when the host could not be read; the rest is then empty.

    `unready` are versions that Triton lists in another state than READY, each with that state and
    its reason; `golden` the versions whose golden questions failed just now, each with a sentence
    (a dead Python stub is ready all the same). `memory_bytes` is the resident memory of Triton and
    its stubs. `work` is the command that the host is still carrying out, though nobody waits.
    `instances` is the number of instances that Triton has loaded of the model, `max_instances` the
    most that the host takes; None where the host does not have it.
    """

    host: str
    region: str
    serving: tuple[int, ...] = ()
    config: str | None = None
    packages: tuple[tuple[int, str], ...] = ()
    edge: str = "ready"
    up: bool = True
    alive: bool = True
    verification: HostVerification | None = None
    highest: int | None = None
    odd: tuple[str, ...] = ()
    problem: str | None = None
    unready: tuple[tuple[int, str], ...] = ()
    golden: tuple[tuple[int, str], ...] = ()
    memory_bytes: int | None = None
    work: str = ""
    instances: int | None = None
    max_instances: int | None = None

    @property
    def answers(self) -> int | None:
        """The version that a request without a version gets: the highest one that is ready."""
        return max(self.serving, default=None)

    @property
    def has_model(self) -> bool:
        """True where it serves the model, or would after a restart of its Triton."""
        return bool(self.serving) or self.config is not None


@dataclass(frozen=True)
class Traffic:
    """Requests that a host answered while it was watched, and the failed ones of them."""

    requests: int
    errors: int


class FleetDriver(Protocol):
    """The fleet, for one model. Every method raises FleetError with a sentence for people.

    A host is told versions, never the text of a config: it builds its config from the package of
    the highest of them, which it verified itself. `rollback` lets that version be older than the
    highest one the host ever accepted; without it the host refuses. A method that changes a host
    raises LeaseLost when the host has seen a newer controller.
    """

    def read_host(self, host: Host) -> HostState:
        """The host as it is. A host that cannot be read is a state with a problem."""

    def read_hosts(self, verify: bool = False) -> dict[str, HostState]:
        """Every host by name, read at the same time; with `verify` each verifies all it has."""

    def read_routing(self) -> dict[str, Routing | str]:
        """The model's routing at each edge by name; a sentence for one that cannot be read."""

    def edges_of(self, host: Host) -> tuple[str, ...]:
        """The names of the edges that the host stands behind."""

    def receives(self, host: Host) -> bool:
        """True where an edge may send the model's requests to the host, whatever its state is."""

    def recipients(self) -> dict[str, frozenset[str]]:
        """The names of all that each edge gives requests to now, of the site or not; an edge that
        does not answer is missing."""

    def shut_out(self, edge: str, name: str) -> None:
        """Put a host that is none of the site's into maintenance at one edge."""

    def edge_states(self) -> dict[str, str]:
        """Each host's state at its edges, without a word to the host; those of an edge that does
        not answer are missing."""

    def route(self, edge: str, routing: Routing) -> None:
        """Give the model this routing at one edge: on its disk first, then at run time."""

    def counters(self) -> dict[int, VersionCounters]:
        """Requests by version over all edges that answer, since each was started."""

    def shadow_counters(self) -> dict[int, VersionCounters]:
        """Copies of requests by version over all edges that answer, and the failed ones."""

    def peers_up(self, host: Host) -> int:
        """The number of other hosts of its region that take traffic now, for that of its models
        that has the fewest."""

    def stage(self, host: Host, shipment: Shipment, rollback: bool) -> str:
        """Have the package verified on the host's disk; clients and Triton see nothing of it."""

    def drain(self, host: Host) -> None:
        """Give the host nothing new and return when it has finished what it had."""

    def set_maintenance(self, host: Host) -> None:
        """Put a drained host into maintenance: its idle connections are dropped."""

    def set_edge(self, host: Host, state: str) -> None:
        """Give the host the edge state `state`; `ready` returns when the checks see it up."""

    def install(self, host: Host, shipment: Shipment) -> None:
        """Put the verified version directory into Triton's repository; nothing is loaded."""

    def persist(self, host: Host, versions: tuple[int, ...], rollback: bool) -> None:
        """Write the versions that a restarted Triton will serve; () takes the model out."""

    def serve(self, host: Host, versions: tuple[int, ...], rollback: bool) -> None:
        """Make Triton serve exactly `versions` (at least one)."""

    def scale(self, host: Host, instances: int | None) -> None:
        """Have the host give the model this number of instances, as packaged where None: in what a
        restarted Triton will serve at once, in what it serves at the next `serve`."""

    def withdraw(self, host: Host) -> None:
        """Make Triton serve no version of the model."""

    def restart(self, host: Host) -> None:
        """Restart the Triton of a host in maintenance and return when it answers again."""

    def check_golden(self, host: Host, version: int) -> str:
        """Warm `version` up and compare golden examples on it; returns a sentence for people."""

    def probe(self, host: Host, version: int) -> ProbeSample:
        """Put one golden question to `version`, which is loaded on the host.

        Raises FleetError where the host cannot be reached or the version has no examples; what
        the version does with the question is in the sample.
        """

    def memory_bytes(self, host: Host) -> int | None:
        """Resident memory of the host's Triton and its stubs, None where it does not run."""

    def watch(self, host: Host) -> Traffic:
        """Count what the host answers for the settling time."""

    def prune(self, host: Host, serving: tuple[int, ...], production: int) -> None:
        """Remove versions that are not needed any more; `production` has proven itself in service,
        and versions that never did push none that did off the disk."""
