"""A deployment walked through the fleet: stage, prepare, move the traffic, commit; else all back.

The ledger line is the one commit point. Before it any failure undoes everything, the edges first;
after it nothing is undone, and what is left is clean-up. Nothing is remembered between steps but
the journal, written before each: a controller that was killed is continued by running the rollout
again, and an undo goes back to before the *first* try.
"""

from __future__ import annotations

from conf.errors import FAILED, INCOMPLETE, INTERRUPTED, REFUSED, UNREACHABLE
from serving.fleet.errors import FleetError
from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Host
from serving.fleet.rollout.clean_up import clean_up
from serving.fleet.rollout.host import activate, give_back, prepare
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.judging import Judge, counters_judge
from serving.fleet.rollout.lease import Lease, LeaseLost
from serving.fleet.rollout.operator_orders import Aborted, OrderDesk
from serving.fleet.rollout.records import Before
from serving.fleet.rollout.rollout_config import Outcome, RolloutConfig
from serving.fleet.rollout.rollout_plan import Change, RolloutPlan
from serving.fleet.rollout.rollout_run import Abandoned, Progress, RolloutRun
from serving.fleet.rollout.shifting import record_counters, shift_traffic, unpin_edges
from serving.fleet.rollout.traffic import route_all, route_edges
from serving.fleet.rollout.undo import restore
from serving.fleet.rollout.waves import by_turns
from serving.fleet.routing import Routing

__all__ = ["Journal", "Lease", "Outcome", "Progress", "RolloutConfig", "roll"]

_STAGED_AT_ONCE = 16


def roll(
    run: RolloutRun, plan: RolloutPlan, judge: Judge | None = None, reason: str = ""
) -> Outcome:
    """Carry out `plan`. Raises LeaseLost, and nothing else for what the fleet does.

    `judge` watches the version while it has a share of the traffic; without one the edges' own
    counters do. A failure waits for its wave, then everything this rollout (and the unfinished one
    it continues) touched is undone, last host first.
    """
    shipment = run.shipment
    production = plan.last
    settled = plan.partial or (plan.is_routed and production == shipment.version)
    if settled and not plan.changes and plan.resumes is None and not plan.to_park:
        return Outcome("unchanged", f"every host already serves {shipment}")
    run.record(
        "started", action=run.action, reason=reason, digest=shipment.digest,
        strategy=run.config.strategy, mode=plan.mode, resumes=plan.resumes, previous=production,
        routing={edge: Routing(version).as_json() for edge, version in plan.base.items()},
        waves=[[c.host.name for c in wave] for wave in plan.waves], left_out=plan.left_out,
    )  # fmt: skip
    record_counters(run)
    touched: dict[str, Before] = dict(plan.inherited)
    begun = [bool(touched)]
    desk = OrderDesk(run)
    judge = judge or counters_judge(run.driver, run.config.max_errors, run.pause_s)
    try:
        _stage(run, plan)
        desk.boundary()
        if not plan.partial:
            begun[0] = True
            _before_hosts(run, plan)
        for wave in plan.waves:
            desk.boundary()
            for change in wave:
                _record_before(run, change, touched, plan)
            begun[0] = True
            _change_wave(run, plan, wave)
        if plan.partial:
            run.record("prepared")
            return Outcome("prepared", hosts=tuple(touched))
        shift_traffic(run, plan, judge, desk)
        for change in plan.changes:
            if change.parked:
                give_back(run, change.host, change.before.edge)
        run.commit(production, reason)
    except LeaseLost:
        raise
    except (FleetError, KeyboardInterrupt, Abandoned) as error:
        why = str(error) or "interrupted at the keyboard"
        if run.journal.is_committed(shipment.model, run.rollout):
            return Outcome("done", f"its clean-up was left out: {why}", hosts=tuple(touched))
        if isinstance(error, Abandoned):
            return _abandoned(run, list(touched), why)
        if not begun[0]:
            run.record("refused", reason=why)
            return Outcome("refused", why, exit_code=_refusal_code(error))
        code = INTERRUPTED if isinstance(error, KeyboardInterrupt | Aborted) else FAILED
        return undo(run, plan, touched, why, code)
    except Exception as error:
        # A defect of ours is no reason to leave a fleet half changed.
        undo(run, plan, touched, f"unexpected {type(error).__name__}: {error}", FAILED)
        raise
    return _finish(run, plan)


def undo(
    run: RolloutRun, plan: RolloutPlan, touched: dict[str, Before], reason: str, exit_code: int
) -> Outcome:
    """The edges back first, then every host in `touched`, last first.

    `exit_code` is that of a complete undo. A second Ctrl-C leaves the rest as it is.
    """
    run.stopping.clear()
    run.record("undoing", reason=reason, hosts=list(touched))
    run.progress("fleet", "undo", f"{reason} Undoing {len(touched)} hosts; Ctrl-C leaves the rest.")
    back = {edge: Routing(version) for edge, version in plan.base.items() if version is not None}
    stuck: dict[str, str] = {}
    left = list(reversed(touched))
    try:
        # Where versions cannot lie side by side, each host answers with what it has meanwhile.
        first = back if plan.mode == "beside" else {edge: Routing() for edge in plan.base}
        stuck |= route_edges(run, first)
        for name in list(left):
            stuck |= _restored(run, plan, name, touched[name], stuck)
            left.remove(name)
        if plan.mode == "swap":
            stuck |= route_edges(
                run, {edge: one for edge, one in back.items() if edge not in stuck}
            )
    except (KeyboardInterrupt, Abandoned):
        return _abandoned(run, left, reason)
    record_counters(run)
    if stuck:
        run.record("manual-intervention", reason=reason, stuck=stuck)
        return Outcome("manual-intervention", reason, stuck, INCOMPLETE)
    run.record("rolled-back", reason=reason)
    return Outcome("rolled-back", reason, exit_code=exit_code)


def _stage(run: RolloutRun, plan: RolloutPlan) -> None:
    def stage(host: Host) -> None:
        run.log_step(host, "staged", run.driver.stage(host, run.shipment, run.rollback))

    # One host of each region first: the others then fetch from it, and the waiting ones cost a
    # thread each.
    run.each(by_turns([change.host for change in plan.changes]), stage, _STAGED_AT_ONCE)


def _before_hosts(run: RolloutRun, plan: RolloutPlan) -> None:
    """Have the edges give what they are to give while hosts change, and no request to the hosts
    that are left out."""
    standby = run.journal.standby()
    for host in plan.to_park:
        why = plan.left_out[host.name]
        if host.name not in standby:
            run.record("quarantined", host=host.name, reason=why)
        run.log_step(host, "park", why)
        run.driver.set_maintenance(host)
    if plan.mode == "swap":
        unpin_edges(run, plan)
        return
    route_all(
        run,
        {
            edge: Routing(version)
            for edge, version in plan.base.items()
            if plan.routing[edge] not in (Routing(version), Routing(run.shipment.version))
            or (plan.resumes and plan.routing[edge] != Routing(version))
        },
    )


def _record_before(
    run: RolloutRun, change: Change, touched: dict[str, Before], plan: RolloutPlan
) -> None:
    run.lease.check()
    versions = change.prepared if plan.mode == "beside" else change.versions
    run.record(
        "before", host=change.host.name, before=change.before.as_json(), versions=list(versions)
    )
    touched.setdefault(change.host.name, change.before)


def _change_wave(run: RolloutRun, plan: RolloutPlan, wave: tuple[Change, ...]) -> None:
    beside = {version for version in plan.base.values() if version is not None}

    def change_one(change: Change) -> None:
        if plan.mode == "swap":
            activate(run, change)
            return
        if change.parked and change.before.edge == READY:
            run.log_step(change.host, "park", "until the edges give the new version")
            run.driver.set_maintenance(change.host)
        # Also the version before, where the edges give the target already: it is the way back.
        prepare(run, change, beside | set(change.versions))

    run.each(wave, change_one, len(wave))


def _restored(
    run: RolloutRun, plan: RolloutPlan, name: str, before: Before, stuck: dict[str, str]
) -> dict[str, str]:
    """The host's name with the reason where it could not be brought back."""
    host = run.fleet.host(name)
    edges = run.driver.edges_of(host)
    if any(edge in stuck for edge in edges):
        return {name: "left as it is: its edge may still give requests to the version undone"}
    base = next((version for edge in edges if (version := plan.base.get(edge))), None)
    try:
        restore(run, host, before, plan.mode == "swap", base)
    except LeaseLost:
        raise
    except FleetError as error:
        # The other hosts are still to be brought back; this one is named at the end.
        return {name: f"{error}{_out_of_traffic(run, host)}"}
    return {}


def _out_of_traffic(run: RolloutRun, host: Host) -> str:
    """Take a host that could not be brought back out of traffic; a sentence where it stays in."""
    try:
        if run.driver.edge_states().get(host.name) != READY:
            return ""
        if not run.driver.peers_up(host):
            return f" It is the last host of {host.region}, and was left in traffic."
        run.driver.set_maintenance(host)
    except LeaseLost:
        raise
    except FleetError as error:
        return f" And it could not be taken out of traffic: {error}"
    return ""


def _finish(run: RolloutRun, plan: RolloutPlan) -> Outcome:
    """The clean-up behind the commit: nothing of it can undo the rollout."""
    skipped: dict[str, str] = {}
    hosts = tuple(change.host.name for change in plan.changes)
    try:
        clean_up(run, [(c.host, c.versions) for c in plan.changes], skipped)
        run.record("done", digest=run.shipment.digest, left=skipped)
    except (KeyboardInterrupt, Abandoned):
        return Outcome("done", "its clean-up was interrupted; fab heal does the rest.", hosts=hosts)
    return Outcome("done", " ".join(skipped.values()), hosts=hosts)


def _abandoned(run: RolloutRun, left: list[str], reason: str) -> Outcome:
    """The end by a second Ctrl-C: what is left is named, and stays open in the journal."""
    names = ", ".join(left) or "nothing"
    why = f"{reason} Interrupted again, and the undo stopped; not yet as before: {names}."
    run.record("interrupted", reason=why, left=left)
    return Outcome("manual-intervention", why, dict.fromkeys(left, "not undone"), INCOMPLETE)


def _refusal_code(error: BaseException) -> int:
    """The exit code of a rollout that activated nothing."""
    if isinstance(error, KeyboardInterrupt | Aborted):
        return INTERRUPTED
    code = getattr(error, "exit_code", FAILED)
    return code if code in (REFUSED, UNREACHABLE) else FAILED
