"""The plan of a deployment, as a value: from the fleet as it is, without touching it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Fleet, Host
from serving.fleet.rollout.driver import HostState
from serving.fleet.rollout.instances import has_instances, instances_text
from serving.fleet.rollout.journal import Unfinished
from serving.fleet.rollout.plan_refusals import (
    refuse_empty_region,
    refuse_instances,
    refuse_older,
    refuse_only_host,
    refuse_unreadable,
)
from serving.fleet.rollout.records import Before
from serving.fleet.rollout.rollout_config import RolloutConfig
from serving.fleet.rollout.waves import waves
from serving.fleet.routing import Routing
from serving.fleet.shipment import Shipment
from serving.triton import model_config


@dataclass(frozen=True)
class Change:
    """One host to change: from `before` to serving `versions`, by way of `prepared`.

    `prepared` are the versions that it has ready while the edges move requests from one to the
    next. `restart`: only a restart of its Triton helps. `down`: its Triton does not answer.
    `parked`: it is kept out of traffic until the edges give the new version. `useless`: requests
    fail on it now, so that a restart costs nothing.
    """

    host: Host
    before: Before
    versions: tuple[int, ...]
    reason: str
    prepared: tuple[int, ...] = ()
    restart: bool = False
    down: bool = False
    parked: bool = False
    useless: bool = False


@dataclass(frozen=True)
class RolloutPlan:
    """Waves of changes (the first is the canary) and the hosts that need none, with the reason.

    `mode` beside: both versions lie ready and the edges move the requests; swap: host by host, for
    a model whose versions cannot lie side by side. `base` is the version of each edge that an undo
    goes back to, `routing` what each has now. `inherited` are hosts that an unfinished rollout
    began to change, as they were before it. `left_out` are hosts that get no traffic and are not
    touched. `partial`: only some hosts are prepared, and no request moves.
    """

    shipment: Shipment
    waves: tuple[tuple[Change, ...], ...]
    unchanged: tuple[tuple[Host, str], ...]
    inherited: dict[str, Before]
    resumes: str | None
    mode: Literal["beside", "swap"] = "beside"
    base: dict[str, int | None] = field(default_factory=dict)
    routing: dict[str, Routing] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    to_park: tuple[Host, ...] = ()
    partial: bool = False
    last: int | None = None

    @property
    def changes(self) -> tuple[Change, ...]:
        """Every change, in order."""
        return tuple(change for wave in self.waves for change in wave)

    @property
    def stable(self) -> int | None:
        """The version that most edges go back to."""
        found = [version for version in self.base.values() if version is not None]
        return max(found, key=found.count, default=None)

    @property
    def is_routed(self) -> bool:
        """True when every edge gives the version already."""
        return all(one == Routing(self.shipment.version) for one in self.routing.values())


@dataclass(frozen=True)
class Selection:
    """The hosts of a command: `skip` are left out of traffic, `only` are alone prepared."""

    skip: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset()


def served_set(
    target: int, before: tuple[int, ...], keep_previous: bool, previous: int | None = None
) -> tuple[int, ...]:
    """The versions to have ready: the target, and the one before it for a warm way back.

    Never one above the target: an edge without a map gives the highest that is ready.
    """
    older = [version for version in before if version < target]
    if not older or not keep_previous:
        return (target,)
    return (previous if previous in older else max(older), target)


def make_plan(
    fleet: Fleet,
    shipment: Shipment,
    states: Mapping[str, HostState],
    routing: Mapping[str, Routing | str],
    edges: Mapping[str, tuple[str, ...]],
    unfinished: Unfinished | None,
    config: RolloutConfig,
    left_out: Mapping[str, str] | None = None,
    only: frozenset[str] = frozenset(),
    last: int | None = None,
    warm: Mapping[str, tuple[int, ...]] | None = None,
    instances: int | None = None,
) -> RolloutPlan:
    """The plan for the fleet in `states`, whose edges have `routing`; `edges` are those of a host.

    `left_out` are quarantined and skipped hosts with the reason, `last` the version in production,
    `warm` the versions that were proven on each host: without any, they count as proven.
    `instances` is the number that `fab scale` ordered of the model, None for as packaged.
    Raises Unreachable when a host or an edge cannot be read, FleetRefusal when one may not be
    changed.
    """
    out = dict(left_out or {})
    hosts = [host for host in fleet.hosts if host.name not in out]
    refuse_unreadable(hosts, states, routing)
    refuse_empty_region(fleet, out, states)
    before = _befores(hosts, states, unfinished)
    now = {edge: one for edge, one in routing.items() if isinstance(one, Routing)}
    base = {
        edge: _base(edge, one, [states[h.name] for h in hosts if edge in edges[h.name]], unfinished)
        for edge, one in now.items()
    }
    same = {host.name: _same_interface(before[host.name], shipment) for host in hosts}
    beside = all(version is not None for version in base.values()) and all(
        same[host.name] or not before[host.name].served for host in hosts
    )
    changes: list[Change] = []
    unchanged: list[tuple[Host, str]] = []
    for host in hosts:
        wanted = {version for edge in edges[host.name] if (version := base.get(edge)) is not None}
        change = _change(host, shipment, states[host.name], before[host.name],
                         same[host.name], wanted, beside)  # fmt: skip
        if not change.reason and warm is not None:
            unproven = set(change.versions) - set(warm.get(host.name, ()))
            if unproven:
                change = replace(change, reason=f"{shipment.model}/{min(unproven)} is not proven")
        count = instances or model_config.instances_in(shipment.config)
        state = states[host.name]
        if not change.reason and state.max_instances and not has_instances(state, count):
            had, wanted_count = state.instances, instances_text(count, shipment.model)
            change = replace(change, reason=f"has {had}, shall have {wanted_count}")
        if only and host.name not in only:
            unchanged.append((host, "is not among the hosts that were named"))
        elif change.reason:
            changes.append(change)
        else:
            edge = before[host.name].edge
            left = "" if edge == READY else f", left in {edge} as it was"
            unchanged.append((host, f"already serves {shipment.version}{left}"))
    changed = [change.host for change in changes]
    refuse_older(shipment, changed, states)
    refuse_instances(shipment.model, instances, changed, states)
    if config.strategy == "restart":
        refuse_only_host(fleet, [one.host for one in changes if one.before.edge == READY])
    inherited = dict(unfinished.touched) if unfinished else {}
    # A host that was left half way comes first: until it is whole, its region is a host short.
    changes.sort(key=lambda change: change.host.name not in inherited)
    return RolloutPlan(
        shipment,
        waves(fleet, changes, config),
        tuple(unchanged),
        inherited,
        unfinished.rollout if unfinished and not unfinished.committed else None,
        "beside" if beside else "swap",
        base,
        now,
        out,
        tuple(h for h in fleet.hosts if h.name in out and states[h.name].edge == READY),
        bool(only),
        last,
    )


def as_it_is(state: HostState) -> Before:
    """The state that an undo must bring back; a Triton that is down counts as it would serve."""
    served = state.serving if state.alive else model_config.versions_in(state.config)
    return Before(served, state.config, state.edge)


def faults(state: HostState, model: str, versions: Sequence[int]) -> str:
    """The fault of a host that serves, which only a restart of its Triton ends; empty for none."""
    for version, sentence in state.golden:
        if version in versions:
            return f"{model}/{version} answers its golden questions wrong: {sentence}"
    if state.verification and not state.verification.ok:
        names = tuple(f"{model}/{version} in its repository" for version in versions)
        for sentence in state.verification.faults:
            if sentence.startswith(names):
                return sentence
    return ""


def version_names(versions: Sequence[int]) -> str:
    """Versions for people."""
    return " and ".join(str(version) for version in versions) if versions else "nothing"


def _befores(
    hosts: Sequence[Host], states: Mapping[str, HostState], unfinished: Unfinished | None
) -> dict[str, Before]:
    """Every host as it was before the first try; one that was only parked by it gets back its
    state at the edge."""
    found: dict[str, Before] = {}
    for host in hosts:
        before = as_it_is(states[host.name])
        if unfinished and host.name in unfinished.touched:
            before = unfinished.touched[host.name]
        elif unfinished and host.name in unfinished.parked:
            before = replace(before, edge=unfinished.parked[host.name])
        found[host.name] = before
    return found


def _base(
    edge: str, routing: Routing, behind: Sequence[HostState], unfinished: Unfinished | None
) -> int | None:
    """The version that an edge gave before the first try, where a host behind it still has it."""
    first = unfinished.routing.get(edge) if unfinished else None
    if first is not None and first.version is not None:
        routing = first
    taking = [state for state in behind if state.edge == READY and state.alive and state.serving]
    if routing.version is not None:
        return routing.version if any(routing.version in s.serving for s in taking) else None
    highest = {max(state.serving) for state in taking}
    return highest.pop() if len(highest) == 1 else None


def _change(
    host: Host,
    shipment: Shipment,
    state: HostState,
    before: Before,
    keep: bool,
    wanted: set[int],
    beside: bool,
) -> Change:
    target = shipment.version
    previous = max((version for version in wanted if version != target), default=None)
    versions = served_set(target, before.served, keep, previous)
    stays = wanted & set(before.served)
    prepared = tuple(sorted({*before.served, target})) if beside else versions
    fault = faults(state, shipment.model, versions) if state.alive else ""
    lacks = bool(wanted - {target} - set(state.serving)) if beside else False
    reason = ""
    if not state.alive:
        reason = "its Triton does not answer"
    elif state.serving != versions:
        reason = f"serves {version_names(state.serving)}, shall serve {version_names(versions)}"
    elif fault:
        reason = fault
    elif dict(state.packages).get(target) != shipment.digest:
        reason = f"its package {shipment} is not the released one"
    elif not model_config.same_config(
        state.config, model_config.with_versions(shipment.config, versions)
    ):
        reason = "would not serve this after a restart of its Triton"
    elif state.edge != before.edge:
        reason = f"was left in {state.edge} by an unfinished rollout"
    return Change(
        host, before, versions, reason, prepared, restart=bool(fault), down=not state.alive,
        parked=lacks and not stays, useless=bool(fault) and not stays,
    )  # fmt: skip


def _same_interface(before: Before, shipment: Shipment) -> bool:
    config = before.config
    return config is not None and model_config.same_interface(config, shipment.config)
