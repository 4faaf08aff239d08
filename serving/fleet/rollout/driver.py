"""The driver interface of the rollout engine; `ssh.ssh_driver` implements it for real hosts.

Reading and changing are apart: `read_host` and `peers_up` change nothing; every change may be done
twice. Tests run the same rollout against a simulated fleet with every step failing in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from serving.fleet.inventory import Host
from serving.fleet.shipment import Shipment


@dataclass(frozen=True)
class HostState:
    """One host as it is now, for one model.

    `serving` are the versions its Triton answers for, `config` the text that a restarted Triton
    would start from, `packages` the digest of each verified package on it. `edge` is the state set
    in HAProxy (ready, drain, maint), `up` the verdict of its checks. `alive` is false when its
    Triton does not answer at all. `problem` is a sentence when the host could not be read; the
    rest is then empty.
    """

    host: str
    region: str
    serving: tuple[int, ...] = ()
    config: str | None = None
    packages: tuple[tuple[int, str], ...] = ()
    edge: str = "ready"
    up: bool = True
    alive: bool = True
    problem: str | None = None

    @property
    def answers(self) -> int | None:
        """The version that a request without a version gets: the highest one that is ready."""
        return max(self.serving, default=None)


@dataclass(frozen=True)
class Traffic:
    """Requests that a host answered while it was watched, and the failed ones of them."""

    requests: int
    errors: int


class FleetDriver(Protocol):
    """The fleet, for one model. Every method raises FleetError with a sentence for people."""

    def read_host(self, host: Host) -> HostState:
        """The host as it is. A host that cannot be read is a state with a problem."""

    def peers_up(self, host: Host) -> int:
        """The number of other hosts of its region that take traffic now."""

    def stage(self, host: Host, shipment: Shipment) -> str:
        """Have the package verified on the host's disk; clients and Triton see nothing of it."""

    def drain(self, host: Host) -> None:
        """Give the host nothing new and return when it has finished what it had."""

    def set_maintenance(self, host: Host) -> None:
        """Put a drained host into maintenance: its idle connections are dropped."""

    def set_edge(self, host: Host, state: str) -> None:
        """Give the host the edge state `state`; `ready` returns when the checks see it up."""

    def install(self, host: Host, shipment: Shipment) -> None:
        """Put the verified version directory into Triton's repository; nothing is loaded."""

    def persist(self, host: Host, config: str | None) -> None:
        """Write what a restarted Triton will serve; None takes the model out."""

    def serve(self, host: Host, config: str, versions: tuple[int, ...]) -> None:
        """Make Triton serve exactly `versions`."""

    def withdraw(self, host: Host) -> None:
        """Make Triton serve no version of the model."""

    def restart(self, host: Host) -> None:
        """Restart the Triton of a host in maintenance and return when it answers again."""

    def check_golden(self, host: Host, version: int) -> str:
        """Warm `version` up and compare golden examples on it; returns a sentence for people."""

    def watch(self, host: Host) -> Traffic:
        """Count what the host answers for the settling time."""

    def prune(self, host: Host, serving: tuple[int, ...]) -> None:
        """Remove versions that are not needed any more."""
