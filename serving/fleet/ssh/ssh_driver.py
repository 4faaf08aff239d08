"""The real fleet: SSH, rsync, Triton and HAProxy behind the methods of `driver.FleetDriver`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serving.artifact.golden import GoldenExample
from serving.fleet.canary.evidence import ProbeSample
from serving.fleet.errors import FleetError, Unreachable
from serving.fleet.haproxy import edge
from serving.fleet.haproxy.edge import ServerState
from serving.fleet.haproxy.edge_group import set_at_all, wait_idle_at_all
from serving.fleet.inventory import Fleet, Host
from serving.fleet.rollout.driver import HostState, Traffic
from serving.fleet.rollout.rollout_config import RolloutConfig
from serving.fleet.shipment import Shipment, read_shipment
from serving.fleet.ssh import transfer
from serving.fleet.ssh.connection import Shell, open_shell
from serving.fleet.ssh.fanout import FanOut
from serving.fleet.ssh.fleet_edges import FleetEdges
from serving.fleet.ssh.golden_probe import GoldenProbe
from serving.fleet.ssh.remote_edge import edge_of
from serving.fleet.ssh.triton import (
    check_golden,
    fleet_errors,
    ready_versions,
    triton_is_live,
)
from serving.fleet.ssh.verbs import HostVerbs, version_list
from serving.host.requests import PACKAGED
from serving.triton.model_config import versions_in

_VERIFY_S = 900.0


class SshDriver(FleetEdges):
    """One model on one real fleet. Connections are opened when first used; `close` ends them."""

    def __init__(
        self, fleet: Fleet, model: str, store: Path, config: RolloutConfig, fence: int = 0
    ) -> None:
        self.fleet, self.model, self.store, self.config = fleet, model, store, config
        self.fence = fence
        self._shells: dict[str, Shell] = {}
        self._edges = {one.name: edge_of(one) for one in fleet.edges}
        self.transfers = FanOut(config.transfer_fetches)
        self._probes: dict[tuple[str, int], GoldenProbe] = {}

    def __enter__(self) -> SshDriver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        for probe in self._probes.values():
            probe.close()
        self._probes.clear()
        for shell in self._shells.values():
            shell.close()
        self._shells.clear()
        for at in self._edges.values():
            at.close()

    def read_hosts(self, verify: bool = False) -> dict[str, HostState]:
        """Every host of the fleet, by name, read at the same time.

        With `verify` each host first verifies all that it has against the signed manifests.
        """
        hosts = self.fleet.hosts
        with ThreadPoolExecutor(max_workers=min(len(hosts), 16)) as pool:
            read = self._verified_host if verify else self.read_host
            return {state.host: state for state in pool.map(read, hosts)}

    def _verified_host(self, host: Host) -> HostState:
        try:
            self._verbs(host).call("verify", "all", timeout_s=_VERIFY_S)
        except FleetError as error:
            return HostState(host.name, host.region, problem=str(error))
        return self.read_host(host)

    def read_host(self, host: Host) -> HostState:
        at_edge = ServerState(edge.READY, False, 0, 0, 0, 0)
        try:
            at_edge = self._at_edges(host)
            shell = self._shell(host)
            facts = transfer.read_facts(self._verbs(host), self.model)
            with fleet_errors(host.name):
                versions_in(facts.config)  # a config that Triton could not read is a problem
            alive = triton_is_live(shell)
            return HostState(
                host=host.name,
                region=host.region,
                serving=ready_versions(shell, self.model) if alive else (),
                config=facts.config,
                packages=tuple(sorted(facts.packages.items())),
                edge=at_edge.admin,
                up=at_edge.up,
                alive=alive,
                verification=facts.verification,
                highest=facts.highest or None,
                odd=facts.odd,
                unready=tuple(
                    (version, f"{state} {reason}".strip())
                    for version, (state, reason) in sorted(facts.states.items())
                    if state not in ("READY", "")
                ),
                golden=tuple(
                    (version, f"{one.detail} (at {one.at})")
                    for version, one in sorted(facts.golden.items())
                    if not one.ok
                ),
                memory_bytes=facts.memory_bytes,
                work=facts.work,
                instances=facts.instances,
                max_instances=facts.max_instances,
            )
        except FleetError as error:
            problem = str(error)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            # Something odd on one host is that host's problem, and hides no other.
            problem = f"{host.name}: {type(error).__name__}: {error}"
        return HostState(host.name, host.region, edge=at_edge.admin, up=at_edge.up, problem=problem)

    def stage(self, host: Host, shipment: Shipment, rollback: bool) -> str:
        limits = transfer.TransferLimits(
            free_disk=self.config.free_disk_mib << 20,
            free_shm=self.config.free_shm_mib << 20,
            transfer_kib_s=self.config.transfer_limit_kib_s,
        )
        verbs = self._verbs(host)
        return self.transfers.stage(host, verbs, shipment, limits, rollback).sentence

    def drain(self, host: Host) -> None:
        self._set_everywhere(host, edge.DRAIN)
        limit = self.config.drain_timeout_s
        _raise_first(wait_idle_at_all(self._edges_of(host), host.name, limit))
        wait_idle_at_all(self._edges_elsewhere(host), host.name, limit)

    def set_maintenance(self, host: Host) -> None:
        self._set_everywhere(host, edge.MAINT)

    def set_edge(self, host: Host, state: str) -> None:
        if state == edge.READY:
            # Not before Triton itself is live: a server leaves maintenance as if it were healthy.
            self._wait_live(host)
        self._set_everywhere(host, state)
        if state == edge.READY:
            for at in self._edges_of(host):
                at.wait_up(host.name, self.config.ready_timeout_s)

    def _set_everywhere(self, host: Host, state: str) -> None:
        """At every edge of its region that answers; raises the first failure after all were tried.

        Where it stands in for another region's hosts too, as far as those edges answer.
        """
        set_at_all(self._edges_elsewhere(host), host.name, state)
        _raise_first(set_at_all(self._edges_of(host), host.name, state))

    def install(self, host: Host, shipment: Shipment) -> None:
        self._verbs(host).call("install", shipment.model, shipment.version, timeout_s=_VERIFY_S)

    def persist(self, host: Host, versions: tuple[int, ...], rollback: bool) -> None:
        named = version_list(versions)
        self._verbs(host).call("persist", self.model, named, rollback=rollback, timeout_s=_VERIFY_S)

    def serve(self, host: Host, versions: tuple[int, ...], rollback: bool) -> None:
        limit = self.fleet.load_timeout_s
        self._verbs(host).call(
            "serve", self.model, version_list(versions), rollback=rollback, timeout_s=limit
        )

    def scale(self, host: Host, instances: int | None) -> None:
        count = instances or PACKAGED
        self._verbs(host).call("scale", self.model, count, timeout_s=_VERIFY_S)

    def withdraw(self, host: Host) -> None:
        self._verbs(host).call("withdraw", self.model, timeout_s=self.fleet.load_timeout_s)

    def revoke(self, host: Host, digest: str) -> None:
        """Have the host refuse the package whose manifest has this sha256, from now on."""
        self._verbs(host).call("revoke", digest)

    def restart(self, host: Host) -> None:
        self._verbs(host).call("restart", timeout_s=self.config.ready_timeout_s)
        self._wait_live(host)

    def check_golden(self, host: Host, version: int) -> str:
        examples = self._examples(version)
        shell = self._shell(host)
        if version not in ready_versions(shell, self.model):
            raise FleetError(f"{host.name}: {self.model}/{version} is not ready.")
        if examples is None:
            return f"{self.model}/{version} is ready; the store has no golden examples of it"
        count = check_golden(
            shell, self.model, version, examples, self.config.warm_up, self.fleet.infer_timeout_s
        )
        return f"{count} golden examples of {self.model}/{version} equal"

    def probe(self, host: Host, version: int) -> ProbeSample:
        shell, key = self._shell(host), (host.name, version)
        probe = self._probes.get(key)
        if probe is None or probe.shell is not shell:
            examples = self._examples(version)
            if not examples:
                raise FleetError(
                    f"the store has no golden examples of {self.model}/{version}: it cannot be "
                    "compared on a host. Release it again, with examples."
                )
            limit_s = self.fleet.infer_timeout_s
            probe = GoldenProbe(shell, self.model, version, examples, limit_s)
            self._probes[key] = probe
        return probe.sample()

    def memory_bytes(self, host: Host) -> int | None:
        return transfer.read_memory(self._verbs(host))

    def watch(self, host: Host) -> Traffic:
        first = self._at_edges(host)
        time.sleep(self.config.settle_s)
        last = self._at_edges(host)
        if not last.up:
            raise FleetError(f"{host.name} went down at the edge after it was given traffic again.")
        return Traffic(last.requests - first.requests, last.errors - first.errors)

    def prune(self, host: Host, serving: tuple[int, ...], production: int) -> None:
        keep = self.config.keep_versions
        self._verbs(host).call("proven", self.model, production)
        self._verbs(host).call("prune", self.model, version_list(serving), keep)

    def _examples(self, version: int) -> tuple[GoldenExample, ...] | None:
        try:
            return read_shipment(self.store, self.model, version).examples
        except FleetError:
            return None

    def _shell(self, host: Host) -> Shell:
        shell = self._shells.get(host.name)
        if shell is None or not shell.connection.is_connected:
            shell = open_shell(host, self.fleet.ssh_of(host))
            self._shells[host.name] = shell
        return shell

    def _verbs(self, host: Host) -> HostVerbs:
        return HostVerbs(self._shell(host), self.fence)

    def _wait_live(self, host: Host) -> None:
        deadline = time.monotonic() + self.config.ready_timeout_s
        while not triton_is_live(self._shell(host)):
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"{host.name}: its Triton did not answer within "
                    f"{self.config.ready_timeout_s:g} s (rollout.ready_timeout_s). Its log on the "
                    "host has the reason."
                )
            time.sleep(0.1)


def _raise_first(failures: Mapping[str, FleetError]) -> None:
    for error in failures.values():
        raise error
