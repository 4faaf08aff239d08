"""The plan of a rollout, as a value: from the fleet as it is, without touching it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.fleet.errors import FleetRefusal, Unreachable
from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Fleet, Host
from serving.fleet.rollout.driver import HostState
from serving.fleet.rollout.journal import Unfinished
from serving.fleet.rollout.records import Before
from serving.fleet.shipment import Shipment
from serving.triton import model_config


@dataclass(frozen=True)
class Change:
    """One host to change: from `before` to serving `versions`."""

    host: Host
    before: Before
    versions: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class RolloutPlan:
    """Waves of changes (the first is the canary) and the hosts that need none, with the reason.

    `inherited` are hosts that an unfinished rollout began to change, as they were before it.
    `rollback` is true where the version may be older than the highest that a host accepted.
    """

    shipment: Shipment
    waves: tuple[tuple[Change, ...], ...]
    unchanged: tuple[tuple[Host, str], ...]
    inherited: dict[str, Before]
    resumes: str | None
    rollback: bool = False

    @property
    def changes(self) -> tuple[Change, ...]:
        """Every change, in order."""
        return tuple(change for wave in self.waves for change in wave)


def served_set(target: int, before: tuple[int, ...], keep_previous: bool) -> tuple[int, ...]:
    """The versions to have ready: the target, and the one before it for a warm way back.

    Never one above the target: requests without a version go to the highest that is ready.
    """
    older = [version for version in before if version < target]
    return (max(older), target) if older and keep_previous else (target,)


def make_plan(
    fleet: Fleet,
    shipment: Shipment,
    states: Mapping[str, HostState],
    unfinished: Unfinished | None,
    strategy: str,
    parallel: int,
    rollback: bool = False,
) -> RolloutPlan:
    """The plan for the fleet in `states`; `rollback` where it may go below a host's highest.

    Raises Unreachable when a host cannot be read, FleetRefusal when one may not be changed.
    """
    problems = [state.problem for state in states.values() if state.problem]
    if problems:
        raise Unreachable(f"{' '.join(problems)} Nothing was changed.")
    inherited = dict(unfinished.touched) if unfinished else {}
    changes: list[Change] = []
    unchanged: list[tuple[Host, str]] = []
    for host in fleet.hosts:
        state = states[host.name]
        before = inherited.get(host.name) or as_it_is(state)
        change = _change(host, shipment, state, before)
        if change.reason:
            changes.append(change)
        else:
            left = "" if before.edge == READY else f", left in {before.edge} as it was"
            unchanged.append((host, f"already serves {shipment.version}{left}"))
    if not rollback:
        _never_older(shipment, changes, states)
    if strategy == "restart":
        _never_empty(fleet, changes)
    # A host that was left half way comes first: until it is whole, its region is a host short.
    changes.sort(key=lambda change: change.host.name not in inherited)
    return RolloutPlan(
        shipment,
        waves(changes, parallel),
        tuple(unchanged),
        inherited,
        unfinished.rollout if unfinished else None,
        rollback,
    )


def as_it_is(state: HostState) -> Before:
    """The state that an undo must bring back; a Triton that is down counts as it would serve."""
    served = state.serving if state.alive else model_config.versions_in(state.config)
    return Before(served, state.config, state.edge)


def waves(changes: Sequence[Change], parallel: int) -> tuple[tuple[Change, ...], ...]:
    """One canary, then waves of at most `parallel` hosts, never two of one region in a wave."""
    left = list(changes)
    made: list[tuple[Change, ...]] = []
    while left:
        wave: list[Change] = []
        for change in list(left):
            regions = {other.host.region for other in wave}
            if len(wave) < (parallel if made else 1) and change.host.region not in regions:
                wave.append(change)
                left.remove(change)
        made.append(tuple(wave))
    return tuple(made)


def _change(host: Host, shipment: Shipment, state: HostState, before: Before) -> Change:
    keep = before.config is not None and model_config.same_interface(before.config, shipment.config)
    versions = served_set(shipment.version, before.served, keep)
    reason = ""
    if not state.alive:
        reason = "its Triton does not answer"
    elif state.serving != versions:
        reason = f"serves {_list(state.serving)}, shall serve {_list(versions)}"
    elif dict(state.packages).get(shipment.version) != shipment.digest:
        reason = f"its package {shipment} is not the released one"
    elif not model_config.same_config(
        state.config, model_config.with_versions(shipment.config, versions)
    ):
        reason = "would not serve this after a restart of its Triton"
    elif state.edge != before.edge:
        reason = f"was left in {state.edge} by an unfinished rollout"
    return Change(host, before, versions, reason)


def _never_older(
    shipment: Shipment, changes: Sequence[Change], states: Mapping[str, HostState]
) -> None:
    for change in changes:
        highest = states[change.host.name].highest
        if highest is not None and highest > shipment.version:
            raise FleetRefusal(
                f"{change.host.name} has accepted {shipment.model}/{highest}, and {shipment} is "
                f"older: that is a rollback. Nothing was changed. fab rollback --model "
                f"{shipment.model} --version {shipment.version}"
            )


def _never_empty(fleet: Fleet, changes: Sequence[Change]) -> None:
    for change in changes:
        if len(fleet.region_of(change.host).hosts) < 2 and change.before.edge == READY:
            raise FleetRefusal(
                f"{change.host.name} is the only host of {change.host.region}: restarting its "
                "Triton would leave the region without answers. Use --set rollout.strategy=load, "
                "or add a host. Nothing was changed."
            )


def _list(versions: tuple[int, ...]) -> str:
    return " and ".join(str(version) for version in versions) if versions else "nothing"
