"""The served versions of the fleet, and every drift from production."""

from __future__ import annotations

from dataclasses import dataclass

from serving.artifact import store
from serving.artifact.manifest import ManifestError
from serving.artifact.store import StoreError
from serving.fleet.cli.command import Controls, production
from serving.fleet.haproxy.edge import READY
from serving.fleet.rollout.driver import HostState
from serving.fleet.rollout.journal import LEDGER, read_lines
from serving.fleet.ssh.ssh_driver import SshDriver
from serving.triton import model_config


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
    """Every row, and what no single host is to blame for."""

    rows: tuple[Row, ...]
    remarks: tuple[str, ...]

    @property
    def drifts(self) -> bool:
        """True when anything is not as it should be."""
        return bool(self.remarks) or any(row.drift for row in self.rows)


def fleet_status(on: Controls, model: str | None = None) -> Status:
    """Read the whole fleet, for `model` or for every model that ever was in production."""
    ledger = [str(entry["model"]) for entry in read_lines(on.journal.folder / LEDGER)]
    rows: list[Row] = []
    remarks: list[str] = []
    for name in [model] if model else sorted(set(ledger)):
        wanted = production(on.journal, name)
        digest = _digest(on, name, wanted)
        with SshDriver(on.fleet, name, on.store, on.config) as driver:
            states = driver.read_hosts()
        rows += [_row(name, state, wanted, digest) for state in states.values()]
        if unfinished := on.journal.unfinished(name):
            remarks.append(
                f"rollout {unfinished.rollout} of {name}/{unfinished.version} did not end. "
                f"Go on with fab deploy --model {name}, or back with fab rollback --model {name}."
            )
    return Status(tuple(rows), tuple(remarks))


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
    if state.edge != READY:
        found.append(f"gets no traffic: it is in {state.edge} at the edge")
    elif not state.up:
        found.append("gets no traffic: the edge's checks say it is down")
    return tuple(found)


def _row(model: str, state: HostState, wanted: int | None, digest: str | None) -> Row:
    answers = state.answers
    return Row(
        model,
        state.host,
        state.region,
        state.serving,
        answers,
        wanted,
        dict(state.packages).get(answers, "") if answers else "",
        state.edge if state.up or state.edge != READY else "down",
        drift(state, wanted, digest),
    )


def _digest(on: Controls, model: str, version: int | None) -> str | None:
    if version is None:
        return None
    try:
        return store.get(on.store, model, version).manifest.digest
    except (StoreError, ManifestError, OSError):
        return None  # a version that the store no longer has can still be served
