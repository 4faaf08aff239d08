"""The served versions of the fleet, and every drift from production."""

from __future__ import annotations

from dataclasses import dataclass

from conf.errors import LockgateError
from serving.artifact import store
from serving.artifact.manifest import ManifestError
from serving.artifact.store import StoreError
from serving.fleet.cli.command import Controls, model_name, production
from serving.fleet.haproxy.edge import READY
from serving.fleet.rollout.driver import HostState
from serving.fleet.rollout.lease import lease_holder
from serving.fleet.ssh.ssh_driver import SshDriver
from serving.triton import model_config
from serving.triton.server import TritonError


@dataclass(frozen=True)
class Row:
    """One model on one host. `drift` are sentences; none means all is as it should be."""

    model: str
    host: str
    region: str
    serving: tuple[int, ...]
    answers: int | None
    production: int | None
    digest: str
    edge: str
    drift: tuple[str, ...]


@dataclass(frozen=True)
class Status:
    """Every row, and what no single host is to blame for: `remarks` are faults, `notes` are not."""

    rows: tuple[Row, ...]
    remarks: tuple[str, ...]
    notes: tuple[str, ...] = ()

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
    rows: list[Row] = []
    remarks: list[str] = []
    broken = on.journal.broken_lines()
    remarks += [str(line) for line in broken if not line.torn]
    notes = [str(line) for line in broken if line.torn]
    if holder := lease_holder(on.journal.folder, on.config.lock_ttl_s):
        notes.append(f"{holder}.")
    deployed = {entry.model for entry in on.journal.read_ledger().entries}
    for name in [model] if model is not None else sorted(deployed):
        try:
            found, names = _rows(on, name)
            rows += found
            notes += names
        except (LockgateError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            remarks.append(f"{name} cannot be shown: {type(error).__name__}: {error}")
        if unfinished := on.journal.unfinished(name):
            remarks.append(
                f"rollout {unfinished.rollout} of {name}/{unfinished.version} did not end. "
                f"Go on with fab deploy --model {name}, or back with fab rollback --model {name}."
            )
    return Status(tuple(rows), tuple(remarks), tuple(notes))


def drift(state: HostState, wanted: int | None, digest: str | None) -> tuple[str, ...]:
    """The faults of one host that should answer with version `wanted` of this `digest`."""
    if state.problem:
        return (state.problem,)
    found = []
    if not state.alive:
        found.append("its Triton does not answer")
    elif state.answers != wanted:
        found.append(
            f"answers with {state.answers or 'nothing'}, production is {wanted or 'nothing'}"
        )
    have = dict(state.packages).get(wanted) if wanted else None
    if wanted and digest and have != digest:
        found.append(
            f"its package {wanted} is {have[:12] if have else 'missing'}, not {digest[:12]}"
        )
    if state.alive and model_config.versions_in(state.config) != state.serving:
        found.append("would serve something else after a restart of its Triton")
    if state.verification and not state.verification.ok:
        faults = "; ".join(state.verification.faults) or "without a reason"
        found.append(f"its verification at {state.verification.at} found: {faults}")
    if state.edge != READY:
        found.append(f"gets no traffic: it is in {state.edge} at the edge")
    elif not state.up:
        found.append("gets no traffic: the edge's checks say it is down")
    return tuple(found)


def _rows(on: Controls, model: str) -> tuple[list[Row], list[str]]:
    """A row for each host, and a note for each name on one that is none of a version."""
    wanted = production(on.journal, model)
    digest = _digest(on, model, wanted)
    with SshDriver(on.fleet, model, on.store, on.config) as driver:
        states = driver.read_hosts(verify=True)
    rows = [_row(model, state, wanted, digest) for state in states.values()]
    notes = [
        f"{state.host}: {name} is no version, and is left alone."
        for state in states.values()
        for name in state.odd
    ]
    return rows, notes


def _row(model: str, state: HostState, wanted: int | None, digest: str | None) -> Row:
    answers = state.answers
    try:
        found = drift(state, wanted, digest)
    except TritonError as error:
        found = (f"{state.host}: {error}",)
    return Row(
        model,
        state.host,
        state.region,
        state.serving,
        answers,
        wanted,
        dict(state.packages).get(answers, "") if answers else "",
        state.edge if state.up or state.edge != READY else "down",
        found,
    )


def _digest(on: Controls, model: str, version: int | None) -> str | None:
    if version is None:
        return None
    try:
        return store.get(on.store, model, version).manifest.digest
    except (StoreError, ManifestError, OSError):
        return None  # a version that the store no longer has can still be served
