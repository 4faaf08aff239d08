"""Deploy, rollback and heal from the fleet as it is: the one way in, for `fab` and for tests."""

from __future__ import annotations

from collections.abc import Iterable

from serving.fleet.errors import FleetRefusal
from serving.fleet.inventory import Fleet, Host
from serving.fleet.rollout.advice import next_command
from serving.fleet.rollout.converge import Turn, converge
from serving.fleet.rollout.departed import refuse_departed
from serving.fleet.rollout.driver import FleetDriver
from serving.fleet.rollout.engine import roll
from serving.fleet.rollout.journal import Journal, Unfinished, history
from serving.fleet.rollout.judging import Judge
from serving.fleet.rollout.rollout_config import Outcome, RolloutConfig
from serving.fleet.rollout.rollout_plan import RolloutPlan, Selection, make_plan
from serving.fleet.rollout.rollout_run import RolloutRun
from serving.fleet.shipment import Shipment

EVERY_HOST = Selection()


def carry_out(
    run: RolloutRun, selection: Selection = EVERY_HOST, reason: str = "", judge: Judge | None = None
) -> Outcome:
    """Do what `run.action` is, to the hosts of `selection`. Raises FleetError when nothing was
    done, LeaseLost."""
    journal, model = run.journal, run.shipment.model
    if run.action == "deploy":
        refuse_departed(run.driver, (*run.fleet.hosts, *run.outside))
        refuse_received(run.driver, run.outside, model)
        plan = plan_deployment(run.fleet, run.shipment, run.driver, journal, run.config, selection)
        outcome = roll(run, plan, judge, reason)
        _close(run, outcome)
        return outcome
    found = journal.open_rollout(model)
    if run.action == "heal":
        refuse_against(found, "heal", production(journal, model))
    warm = journal.warm(model)
    return converge(
        run,
        Turn(
            frozenset(name for name, proven in warm.items() if run.shipment.version in proven),
            left_out(run.fleet.hosts, journal, selection),
            selection.only,
            production(journal, model),
            found,
            reason,
            _leaving(run, selection),
        ),
    )


def _leaving(run: RolloutRun, selection: Selection) -> tuple[Host, ...]:
    """The hosts outside the placement that this heal may touch."""
    out = left_out(run.outside, run.journal, selection)
    return tuple(
        host
        for host in run.outside
        if host.name not in out and (not selection.only or host.name in selection.only)
    )


def _close(run: RolloutRun, outcome: Outcome) -> None:
    """End the last rollout's line in the journal where all that it lacked turns out to be done."""
    found = run.journal.open_rollout(run.shipment.model)
    if outcome.kind == "unchanged" and found and found.committed:
        run.journal.record("done", found.rollout, model=found.model, version=found.version)


def plan_deployment(
    fleet: Fleet,
    shipment: Shipment,
    driver: FleetDriver,
    journal: Journal,
    config: RolloutConfig,
    selection: Selection = EVERY_HOST,
) -> RolloutPlan:
    """The plan of a deployment; nothing is touched. Raises FleetError."""
    unfinished = journal.open_rollout(shipment.model)
    _refuse_moved(fleet, unfinished)
    return make_plan(
        fleet,
        shipment,
        driver.read_hosts(verify=True),
        driver.read_routing(),
        {host.name: driver.edges_of(host) for host in fleet.hosts},
        unfinished,
        config,
        left_out(fleet.hosts, journal, selection),
        selection.only,
        production(journal, shipment.model),
        journal.warm(shipment.model),
        journal.instances(shipment.model),
    )


def refuse_received(driver: FleetDriver, outside: Iterable[Host], model: str) -> None:
    """Raises FleetRefusal where an edge may send the model's requests to a host outside its
    placement: that one would not have the version that the edge then names."""
    found = [host.name for host in outside if driver.receives(host)]
    if found:
        raise FleetRefusal(
            f"an edge still sends requests for {model} to {', '.join(found)}, outside its "
            "placement. Nothing was changed. First give the edges their config: fab edges --roll "
            "(of this machine: scripts/site up)."
        )


def _refuse_moved(fleet: Fleet, unfinished: Unfinished | None) -> None:
    """Raises FleetRefusal for an open rollout whose hosts are not the model's any more."""
    names = {host.name for host in fleet.hosts}
    moved = sorted(set(unfinished.touched) - names) if unfinished else []
    if unfinished and moved:
        raise FleetRefusal(
            f"{unfinished.rollout} is open and began to change {', '.join(moved)}, where "
            f"{unfinished.model} has no place any more. End it first: fab heal --model "
            f"{unfinished.model}"
        )


def left_out(hosts: Iterable[Host], journal: Journal, selection: Selection) -> dict[str, str]:
    """Those of `hosts` that get no traffic and are not touched, each with the reason."""
    standby = {name: f"on standby: {why}" for name, why in journal.standby().items()}
    # Naming a host is the word of a person that it may be touched again.
    found = {
        name: why
        for name, why in (standby | journal.quarantined()).items()
        if name not in selection.only
    }
    found |= {name: "skipped by --skip" for name in selection.skip if name not in found}
    return {host.name: found[host.name] for host in hosts if host.name in found}


def refuse_against(found: Unfinished | None, action: str, current: int | None) -> None:
    """Raises FleetRefusal for a command that would lead back to what an open rollback leaves."""
    if found and found.action == "rollback" and not found.committed:
        raise FleetRefusal(f"{next_command(found, current)} A {action} would undo it.")


def production(journal: Journal, model: str) -> int | None:
    """The version of `model` that the ledger calls production."""
    stack = history(journal.productions(model))
    return stack[-1] if stack else None
