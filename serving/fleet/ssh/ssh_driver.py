"""The real fleet: SSH, rsync, Triton and HAProxy behind the methods of `driver.FleetDriver`."""

from __future__ import annotations

import shlex
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from serving.artifact.golden import GoldenExample
from serving.fleet.errors import FleetError, Unreachable
from serving.fleet.haproxy import edge
from serving.fleet.inventory import Fleet, Host
from serving.fleet.rollout.driver import HostState, Traffic
from serving.fleet.rollout.engine import RolloutConfig
from serving.fleet.shipment import Shipment, read_shipment
from serving.fleet.ssh import transfer
from serving.fleet.ssh.connection import Shell, open_shell
from serving.fleet.ssh.triton import (
    check_golden,
    fleet_errors,
    ready_versions,
    triton_is_live,
    triton_session,
)
from serving.triton.model_config import versions_in, with_versions

if TYPE_CHECKING:
    from serving.triton.grpc_client import TritonClient


class SshDriver:
    """One model on one real fleet. Connections are opened when first used; `close` ends them."""

    def __init__(
        self, fleet: Fleet, model: str, store: Path, config: RolloutConfig, fence: int = 0
    ) -> None:
        self.fleet, self.model, self.store, self.config = fleet, model, store, config
        self.fence = fence
        self._shells: dict[str, Shell] = {}
        self._sessions: dict[str, tuple[ExitStack, TritonClient]] = {}
        self._opening = threading.Lock()

    def __enter__(self) -> SshDriver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every session and connection."""
        for name in list(self._sessions):
            self._hang_up(name)
        for shell in self._shells.values():
            shell.close()
        self._shells.clear()

    def read_hosts(self) -> dict[str, HostState]:
        """Every host of the fleet, by name, read at the same time."""
        hosts = self.fleet.hosts
        with ThreadPoolExecutor(max_workers=min(len(hosts), 16)) as pool:
            return {state.host: state for state in pool.map(self.read_host, hosts)}

    def read_host(self, host: Host) -> HostState:
        try:
            shell = self._shell(host)
            facts = transfer.read_facts(shell, self.model)
            with fleet_errors(host.name):
                versions_in(facts.config)  # a config that Triton could not read is a problem
            at_edge = self._edge(host).state(host.name)
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
            )
        except FleetError as error:
            return HostState(host.name, host.region, problem=str(error))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            # Something odd on one host is that host's problem, and hides no other.
            problem = f"{host.name}: {type(error).__name__}: {error}"
            return HostState(host.name, host.region, problem=problem)

    def peers_up(self, host: Host) -> int:
        states = self._edge(host).states()
        return sum(s.takes_traffic for name, s in states.items() if name != host.name)

    def stage(self, host: Host, shipment: Shipment, rollback: bool) -> str:
        limits = transfer.TransferLimits(
            free_disk=self.config.free_disk_mib << 20,
            free_shm=self.config.free_shm_mib << 20,
            transfer_kib_s=self.config.transfer_limit_kib_s,
        )
        return transfer.stage(self._shell(host), shipment, limits)

    def drain(self, host: Host) -> None:
        self._edge(host).set(host.name, edge.DRAIN)
        self._edge(host).wait_idle(host.name, self.config.drain_timeout_s)

    def set_maintenance(self, host: Host) -> None:
        self._edge(host).set(host.name, edge.MAINT)

    def set_edge(self, host: Host, state: str) -> None:
        if state == edge.READY:
            # Not before Triton itself is live: a server leaves maintenance as if it were healthy.
            self._wait_live(host)
        self._edge(host).set(host.name, state)
        if state == edge.READY:
            self._edge(host).wait_up(host.name, self.config.ready_timeout_s)

    def install(self, host: Host, shipment: Shipment) -> None:
        command = transfer.install_command(host, shipment.model, shipment.version)
        self._shell(host).run(command)

    def persist(self, host: Host, versions: tuple[int, ...], rollback: bool) -> None:
        config = self._config(host, versions) if versions else None
        self._shell(host).run(transfer.persist_command(host, self.model, config))

    def serve(self, host: Host, versions: tuple[int, ...], rollback: bool) -> None:
        config = self._config(host, versions)
        with fleet_errors(host.name):
            client = self._triton(host)
            client.serve_versions(self.model, config, versions, self.fleet.load_timeout_s)

    def withdraw(self, host: Host) -> None:
        with fleet_errors(host.name):
            self._triton(host).unload(self.model, self.fleet.load_timeout_s)

    def restart(self, host: Host) -> None:
        self._hang_up(host.name)
        self._shell(host).run(host.restart, timeout_s=self.config.ready_timeout_s)
        self._wait_live(host)

    def check_golden(self, host: Host, version: int) -> str:
        examples = self._examples(version)
        client = self._triton(host)
        if examples is None:
            with fleet_errors(host.name):
                ready = client.ready_versions(self.model)
            if version not in ready:
                raise FleetError(f"{host.name}: {self.model}/{version} is not ready.")
            return f"{self.model}/{version} is ready; the store has no golden examples of it"
        count = check_golden(
            self._shell(host),
            client,
            self.model,
            version,
            examples,
            self.config.warm_up,
            self.fleet.infer_timeout_s,
        )
        return f"{count} golden examples of {self.model}/{version} equal"

    def watch(self, host: Host) -> Traffic:
        first = self._edge(host).state(host.name)
        time.sleep(self.config.settle_s)
        last = self._edge(host).state(host.name)
        if not last.up:
            raise FleetError(f"{host.name} went down at the edge after it was given traffic again.")
        return Traffic(last.requests - first.requests, last.errors - first.errors)

    def prune(self, host: Host, serving: tuple[int, ...]) -> None:
        shell = self._shell(host)
        facts = transfer.read_facts(shell, self.model)
        packages, installed = transfer.to_prune(facts, serving, self.config.keep_versions)
        if packages or installed:
            shell.run(transfer.prune_command(host, self.model, packages, installed))

    def _config(self, host: Host, versions: tuple[int, ...]) -> str:
        """The config.pbtxt for `versions`, from the verified package of the highest."""
        path = host.packages / self.model / str(max(versions)) / "config.pbtxt"
        text = self._shell(host).run(f"cat {shlex.quote(str(path))}").stdout
        with fleet_errors(host.name):
            return with_versions(text, versions)

    def _examples(self, version: int) -> tuple[GoldenExample, ...] | None:
        try:
            return read_shipment(self.store, self.model, version).examples
        except FleetError:
            return None

    def _edge(self, host: Host) -> edge.Edge:
        return edge.Edge(host.region, self.fleet.region_of(host).socket)

    def _shell(self, host: Host) -> Shell:
        shell = self._shells.get(host.name)
        if shell is None or not shell.connection.is_connected:
            shell = open_shell(host, self.fleet.ssh)
            self._shells[host.name] = shell
        return shell

    def _triton(self, host: Host) -> TritonClient:
        if host.name not in self._sessions:
            stack = ExitStack()
            # Two hosts' tunnels opened at the same moment could draw the same free local port.
            with self._opening:
                session = stack.enter_context(triton_session(self._shell(host)))
            self._sessions[host.name] = (stack, session)
        return self._sessions[host.name][1]

    def _hang_up(self, name: str) -> None:
        stack, _ = self._sessions.pop(name, (None, None))
        if stack is not None:
            stack.close()

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
