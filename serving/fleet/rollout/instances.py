"""The instances of one model: the same number on every host, given in place, proven on each.

Triton adds and ends instances of a version that serves without a gap (measured: no request fails
and none waits for it), so that no host is drained. The number is in the journal before the first
host has it; where a host fails, all go back to the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conf.errors import INCOMPLETE
from serving.fleet.errors import FleetError, FleetRefusal
from serving.fleet.inventory import Host
from serving.fleet.rollout.driver import FleetDriver, HostState
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import Lease, LeaseLost
from serving.fleet.rollout.rollout_run import Progress
from serving.triton import model_config


class ScaledInPart(FleetError):
    """A part of what was ordered is done; the message names what is not."""

    exit_code = INCOMPLETE


@dataclass(frozen=True)
class InstanceOrder:
    """An order about `model`, of which `version` is production and has `packaged` instances by its
    package. `hosts` are those that rollouts touch."""

    model: str
    version: int
    packaged: int
    hosts: Sequence[Host]
    driver: FleetDriver
    journal: Journal
    lease: Lease
    progress: Progress

    def log(self, event: str, **content: object) -> None:
        """Journal a step before it is done. Raises LeaseLost."""
        self.lease.check()
        about = {"model": self.model, "version": self.version}
        self.journal.record(event, f"scale-{self.lease.fence}", **about, **content)


def instances_text(count: int | None, model: str) -> str:
    """A number of instances for people."""
    return f"{'no' if count is None else count} instance{'' if count == 1 else 's'} of {model}"


def has_instances(state: HostState, count: int) -> bool:
    """True when Triton has `count` instances, now and after a restart; also where it serves none
    of the model, or the host's programs do not know of instances."""
    if state.instances is None or state.config is None:
        return True
    return state.instances == count == model_config.instances_in(state.config)


def give_instances(
    driver: FleetDriver, host: Host, state: HostState, instances: int | None, version: int
) -> str:
    """Give one host, read as `state`, the number of instances; returns how `version` answered.

    Raises FleetError.
    """
    driver.scale(host, instances)
    driver.serve(host, state.serving, rollback=True)
    return driver.check_golden(host, version)


def instance_changes(
    hosts: Sequence[Host], states: Mapping[str, HostState], count: int
) -> tuple[list[Host], dict[str, str]]:
    """The hosts that have another number than `count`, and those that cannot be given one, each
    with the reason. Raises FleetRefusal for a host that does not take as many."""
    wrong: list[Host] = []
    missed: dict[str, str] = {}
    for host in hosts:
        state = states[host.name]
        name = host.name
        if state.problem or not state.alive:
            missed[name] = state.problem or f"{name}: its Triton does not answer."
        elif state.max_instances is None:
            missed[name] = f"{name}: its programs are older. Type: fab upgrade --hosts {name}."
        elif count > state.max_instances:
            raise FleetRefusal(
                f"{host.name} takes {state.max_instances} instances of a model at most "
                f"(site.triton.max_instances), not {count}. Nothing was changed."
            )
        elif not has_instances(state, count):
            wrong.append(host)
    return wrong, missed


def scale_model(order: InstanceOrder, instances: int | None, reason: str) -> str:
    """Give the model `instances` instances on every host, as packaged where None; a sentence.

    Raises FleetRefusal where a host does not take as many, FleetError where one fails (all have
    then what they had), ScaledInPart naming hosts that do not have the number.
    """
    count, previous = instances or order.packaged, order.journal.instances(order.model)
    states = order.driver.read_hosts()
    wrong, missed = instance_changes(order.hosts, states, count)
    if wrong or previous != instances:
        order.log("scaled", instances=instances, previous=previous, reason=reason)
    done: list[Host] = []
    for host in wrong:
        done.append(host)
        try:
            _give(order, host, states[host.name], instances)
        except LeaseLost:
            raise
        except FleetError as error:
            if previous == instances:  # typed again, or a host had lost its number: nothing to undo
                missed[host.name] = str(error)
                continue
            _undo(order, done, states, previous, str(error))
    what = instances_text(count, order.model)
    if missed:
        raise ScaledInPart(
            f"{what} are ordered, and are not on {', '.join(missed)}: {' '.join(missed.values())} "
            f"When they answer: fab heal --model {order.model}"
        )
    if not wrong:
        return f"no change: every host has {what}."
    return f"{what} on each of {len(order.hosts)} hosts; {len(wrong)} were changed."


def _give(order: InstanceOrder, host: Host, state: HostState, instances: int | None) -> None:
    wanted = instances_text(instances or order.packaged, order.model)
    detail = f"{wanted}, not {state.instances}"
    order.log("step", host=host.name, step="scale", detail=detail)
    order.progress(host.name, "scale", detail)
    answered = give_instances(order.driver, host, state, instances, order.version)
    order.progress(host.name, "checked", answered)


def _undo(
    order: InstanceOrder,
    done: Sequence[Host],
    states: Mapping[str, HostState],
    previous: int | None,
    why: str,
) -> None:
    """Every host in `done` back to the number before. Raises FleetError, or ScaledInPart."""
    order.log("scaled", instances=previous, previous=None, reason=f"undone: {why}")
    order.progress("fleet", "undo", f"{why} Undoing {len(done)} hosts.")
    stuck: dict[str, str] = {}
    for host in reversed(done):
        try:
            give_instances(order.driver, host, states[host.name], previous, order.version)
        except LeaseLost:
            raise
        except FleetError as error:
            # The others are still to be brought back; this one is named at the end.
            stuck[host.name] = str(error)
    if stuck:
        raise ScaledInPart(
            f"{why} Undone, but not on {', '.join(stuck)}: {' '.join(stuck.values())} Mend it: "
            f"fab heal --model {order.model}"
        )
    raise FleetError(f"{why} Every host has as many instances of {order.model} as before.")
