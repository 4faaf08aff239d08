"""The fleet brought to a version that it had: rollback and heal. Nothing of it is ever undone.

An emergency has one order: first the requests, then the hosts. Where the journal has the version
proven on hosts, the edges are moved at once and no host is waited for; the ledger line follows, and
only then is each host read and proven. A host that fails is taken out of traffic at its edge,
restarted, and given back or quarantined; one that cannot be reached is named. None blocks another.
"""

from __future__ import annotations

from conf.errors import DONE, INCOMPLETE, UNREACHABLE
from serving.fleet.rollout.departed import shut_out_departed
from serving.fleet.rollout.fleet_pass import FleetPass, Turn
from serving.fleet.rollout.leaving import leave_hosts
from serving.fleet.rollout.mending import bring_hosts
from serving.fleet.rollout.rollout_config import Outcome
from serving.fleet.rollout.rollout_run import Abandoned, RolloutRun
from serving.fleet.rollout.shifting import record_counters


def converge(run: RolloutRun, turn: Turn) -> Outcome:
    """Bring the fleet to the version of `run`. Raises LeaseLost, and nothing else for what the
    fleet does."""
    return _carried_out(FleetPass(run, turn))


def _carried_out(on: FleetPass) -> Outcome:
    run, turn = on.run, on.turn
    run.record(
        "started", action=run.action, reason=turn.reason, digest=run.shipment.digest,
        strategy=run.config.strategy, previous=turn.production,
        resumes=turn.unfinished.rollout if turn.unfinished else None,
        left_out=dict(turn.left_out),
    )  # fmt: skip
    try:
        shut_out_departed(on)
        if turn.left_out:
            on.park_left_out()
        if run.action == "rollback":
            on.flip(turn.warm)
        record_counters(run)
        on.read_edges()
        bring_hosts(on)
        if run.action == "heal":
            leave_hosts(on)
    except (KeyboardInterrupt, Abandoned) as error:
        why = str(error) or "interrupted at the keyboard"
        if not on.committed:
            what = "the edges may differ: go on with the same command"
        else:
            what = f"{run.shipment} is in production, and its hosts are not all checked"
        run.record("interrupted", reason=why, left=what)
        return Outcome("incomplete", f"{why}; {what}.", on.stuck, INCOMPLETE)
    return _end(on)


def _end(on: FleetPass) -> Outcome:
    run = on.run
    record_counters(run)
    hosts = tuple(host.name for host in (*run.fleet.hosts, *run.outside) if host.name in on.changed)
    if run.action == "rollback" and not on.committed:
        reason = " ".join(on.stuck.values()) or "no edge gives it"
        # What an earlier rollout touched, or this one took out of traffic, stays open.
        left = on.changed or on.turn.unfinished
        run.record("manual-intervention" if left else "refused", reason=reason, stuck=on.stuck)
        return Outcome("refused", reason, on.stuck, UNREACHABLE)
    if on.stuck:
        run.record("incomplete", stuck=on.stuck)
        return Outcome("incomplete", "", on.stuck, INCOMPLETE, hosts)
    run.record("done", digest=run.shipment.digest)
    if run.action == "heal" and not on.changed:
        return Outcome("unchanged", f"every host serves {run.shipment}", exit_code=DONE)
    return Outcome("done", hosts=hosts)
