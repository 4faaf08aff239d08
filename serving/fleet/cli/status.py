"""The served versions of the fleet, every drift from production, and the rollout at work on it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from conf.errors import LockgateError
from conf.site_placement import hosts_of
from serving.artifact import store
from serving.artifact.manifest import ManifestError
from serving.artifact.store import StoreError
from serving.fleet.cli.command import Controls, model_name, production
from serving.fleet.cli.holder_watch import HolderWatch
from serving.fleet.cli.host_status import (
    Row,
    host_row,
    routed_versions,
    stray_rows,
    with_instances,
    with_quarantine,
    with_standby,
)
from serving.fleet.cli.model_status import (
    ModelStatus,
    latency_now,
    model_status,
    routing_faults,
)
from serving.fleet.cli.upgrade_status import RunningUpgrade, upgrade_now, with_upgrade
from serving.fleet.errors import FleetError
from serving.fleet.report.pages import read_rollouts
from serving.fleet.report.prometheus import PrometheusClient
from serving.fleet.report.rollout_record import OPEN, RolloutRecord
from serving.fleet.rollout.advice import next_command
from serving.fleet.rollout.lease import lease_holder
from serving.fleet.routing import VersionCounters
from serving.fleet.shipment import read_shipment
from serving.fleet.ssh.ssh_driver import SshDriver
from serving.triton.model_config import instances_in


@dataclass(frozen=True)
class RunningRollout:
    """A rollout that a living controller is at work on; `step` is the newest one.

    `quiet_s` are seconds that its controller was watched without a sign of life.
    """

    rollout: str
    model: str
    version: int
    action: str
    who: str
    reason: str
    since: float
    age_s: float
    step: str
    quiet_s: float = 0.0


@dataclass(frozen=True)
class Status:
    """Every row, and what no single host is to blame for: `remarks` are faults, `notes` are not.

    `quarantined` are hosts that a person keeps out of traffic, `standby` those that `fab scale`
    does, each with the reason; `upgrading` is the upgrade of hosts that is going on.
    """

    rows: tuple[Row, ...]
    remarks: tuple[str, ...]
    notes: tuple[str, ...] = ()
    models: tuple[ModelStatus, ...] = ()
    running: tuple[RunningRollout, ...] = ()
    quarantined: Mapping[str, str] | None = None
    standby: Mapping[str, str] | None = None
    upgrading: RunningUpgrade | None = None

    @property
    def drifts(self) -> bool:
        """True when anything is not as it should be."""
        return bool(self.remarks) or any(row.drift for row in self.rows)


def fleet_status(on: Controls, model: str | None = None) -> Status:
    """Read the whole fleet, for `model` or for every model that ever was in production.

    What cannot be read of one host, one model or one line of the journal is shown in its place, and
    hides nothing else. Raises ConfigError for a `model` that is no name.
    """
    if model is not None:
        model_name(model, "status")
    watch = HolderWatch(on.journal.folder, on.config.lock_ttl_s)
    broken = on.journal.broken_lines()
    remarks = [str(line) for line in broken if not line.torn]
    notes = [str(line) for line in broken if line.torn]
    ledger = on.journal.read_ledger().entries
    records = read_rollouts(on.journal, model)
    deployed = {entry.model for entry in ledger} | {one.model for one in records}
    quarantined, standby = on.journal.quarantined(), on.journal.standby()
    upgrade = upgrade_now(on.journal, watch)
    upgrading = None if isinstance(upgrade, str) else upgrade
    remarks += [upgrade] if isinstance(upgrade, str) and upgrade else []
    rows: list[Row] = []
    models: list[ModelStatus] = []
    running: list[RunningRollout] = []
    for name in [model] if model is not None else sorted(deployed):
        own = [one for one in records if one.model == name]
        going = _running(own, watch)
        try:
            # A host verifies all it has at once: the first model's reading is enough.
            found, seen, names = _model(on, name, own, going, verify=not models)
            found = [with_standby(with_quarantine(row, quarantined), standby) for row in found]
            rows += [with_upgrade(row, upgrading) for row in found]
            notes += names
            models.append(seen)
            remarks += [] if going else routing_faults(seen)
        except (LockgateError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            remarks.append(f"{name} cannot be shown: {type(error).__name__}: {error}")
        if going := _running(_newest(on, name), watch):
            running.append(going)
        elif unfinished := on.journal.open_rollout(name):
            remarks.append(next_command(unfinished, production(on.journal, name)))
    if (
        not running
        and not upgrading
        and (holder := lease_holder(on.journal.folder, on.config.lock_ttl_s))
    ):
        notes.append(f"{holder}.")
    return Status(
        tuple(rows), tuple(remarks), tuple(notes), tuple(models), tuple(running), quarantined,
        standby, upgrading,
    )  # fmt: skip


def _newest(on: Controls, model: str) -> list[RolloutRecord]:
    """Its last rollout as the journal has it now: hosts take seconds to read, and one may end."""
    return read_rollouts(on.journal, model)[-1:]


def _running(records: list[RolloutRecord], watch: HolderWatch) -> RunningRollout | None:
    """The open rollout among one model's, where a controller is at work on it."""
    holder = watch.holder()
    found = records[-1] if records and records[-1].outcome == OPEN else None
    if (
        found is None
        or holder is None
        or f"{found.model}/{found.version}" not in holder.what.split()
    ):
        return None
    return RunningRollout(
        found.rollout, found.model, found.version, found.action, found.who, found.reason,
        found.began, max(round(time.time() - found.began, 1), 0.0), found.last_step,
        round(watch.quiet_s(), 1),
    )  # fmt: skip


def _model(
    on: Controls,
    model: str,
    records: list[RolloutRecord],
    going: RunningRollout | None,
    verify: bool,
) -> tuple[list[Row], ModelStatus, list[str]]:
    """A row for each host that has the model or should, the model as a whole, and notes about what
    is no fault."""
    entries = on.journal.productions(model)
    wanted = production(on.journal, model)
    digest = _digest(on, model, wanted)
    instances = on.journal.instances(model) or _packaged_instances(on, model, wanted)
    ended = [one for one in records if one.ended is not None]
    prometheus = PrometheusClient(on.prometheus_url, on.passwords)
    with (
        ThreadPoolExecutor(max_workers=1) as pool,
        SshDriver(on.fleet, model, on.store, on.config) as driver,
    ):
        latency: Future[float | str] = pool.submit(latency_now, prometheus, model)
        states = driver.read_hosts(verify=verify)
        routing = driver.read_routing()
        notes: list[str] = []
        counters: dict[int, VersionCounters] = {}
        try:
            counters = driver.counters()
        except FleetError as error:
            notes.append(f"{model}: the edges' counters cannot be read: {error}")
        edges = {host.name: driver.edges_of(host) for host in on.fleet.hosts} if on.fleet else {}
        seen = model_status(
            model, entries[-1] if entries else None, ended[-1] if ended else None, routing,
            counters, latency.result(), time.time(), instances,
        )  # fmt: skip
    touched = _touched(records, going)
    placed = hosts_of(on.fleet.placement, model, states) if on.fleet else tuple(states)
    rows = []
    for state in states.values():
        if state.host not in placed:
            rows += stray_rows(model, state)
            continue
        row = host_row(
            model, state, wanted, digest, routed_versions(routing, edges.get(state.host, ()))
        )
        row = with_instances(row, instances)
        if state.host in touched and not state.problem:
            row = replace(row, drift=(), passing=row.drift)
        rows.append(row)
    notes += [
        f"{state.host}: {name} is no version, and is left alone."
        for state in states.values()
        for name in state.odd
    ]
    return rows, seen, notes


def _touched(records: list[RolloutRecord], going: RunningRollout | None) -> frozenset[str]:
    """Hosts that the running rollout is at work on, or was."""
    if going is None:
        return frozenset()
    return frozenset(step.host for step in records[-1].steps)


def _digest(on: Controls, model: str, version: int | None) -> str | None:
    if version is None:
        return None
    try:
        return store.get(on.store, model, version).manifest.digest
    except (StoreError, ManifestError, OSError):
        return None  # a version that the store no longer has can still be served


def _packaged_instances(on: Controls, model: str, version: int | None) -> int | None:
    if version is None:
        return None
    try:
        return instances_in(read_shipment(on.store, model, version).config)
    except FleetError:
        return None
