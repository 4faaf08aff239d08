"""The traffic moved from one version to the next at the edges, step by step, each one judged."""

from __future__ import annotations

from serving.fleet.errors import FleetError
from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Host
from serving.fleet.rollout.host import read
from serving.fleet.rollout.judging import Judge
from serving.fleet.rollout.operator_orders import OrderDesk
from serving.fleet.rollout.rollout_plan import RolloutPlan, version_names
from serving.fleet.rollout.rollout_run import RolloutRun
from serving.fleet.rollout.traffic import hosts_behind, route_all
from serving.fleet.routing import Routing, VersionCounters

_AT_ONCE = 16


class CanaryFailed(FleetError):
    """A version was judged worse than the one before it, or could not be judged in time."""


def shift_traffic(run: RolloutRun, plan: RolloutPlan, judge: Judge, desk: OrderDesk) -> None:
    """Give the version `rollout.steps` of the requests, each step baked and judged, then all.

    Raises CanaryFailed, Aborted, Unreachable. A model whose versions cannot lie side by side gets
    all at once: its hosts were watched one by one.
    """
    target = run.shipment.version
    edges = [edge for edge, one in plan.routing.items() if one != Routing(target)]
    edges = [edge for edge in edges if plan.mode == "swap" or plan.base[edge] != target]
    steps = run.config.steps if plan.mode == "beside" and edges else (100.0,)
    if run.config.shadow_percent and plan.mode == "beside" and edges:
        _shadow(run, plan, edges, desk)
    for percent in steps:
        desk.boundary()
        if desk.promoted and percent < 100:
            continue
        if percent in run.config.approvals:
            desk.await_approval(percent)
        if percent >= 100 and plan.mode == "beside":
            _persist(run, plan)
        route_all(
            run,
            {
                edge: Routing(target)
                if percent >= 100
                else Routing(plan.base[edge], target, float(percent))
                for edge in (edges if percent < 100 else plan.routing)
            },
        )
        if not edges:
            return
        _require_pass(run, plan, judge, desk, percent)
        record_counters(run)


def _shadow(run: RolloutRun, plan: RolloutPlan, edges: list[str], desk: OrderDesk) -> None:
    """Give the version copies of requests, whose answers go to nobody. Raises CanaryFailed."""
    target, share = run.shipment.version, run.config.shadow_percent
    none = VersionCounters(0, 0)
    desk.boundary()
    before = run.driver.shadow_counters().get(target, none)
    route_all(
        run,
        {edge: Routing(plan.base[edge], shadow=target, shadow_percent=share) for edge in edges},
    )
    run.pause_s(run.config.bake_s, desk.poll)
    seen = run.driver.shadow_counters().get(target, none).since(before)
    why = f"{seen.errors} of {seen.requests} copies of requests to {run.shipment} failed"
    verdict = "fail" if seen.errors > run.config.max_errors else "pass"
    run.record("analysis", percent=0, verdict=verdict, reasons=[why], numbers={})
    run.progress("fleet", "shadow", why)
    if verdict == "fail":
        raise CanaryFailed(f"{why} (rollout.max_errors is {run.config.max_errors}).")


def _persist(run: RolloutRun, plan: RolloutPlan) -> None:
    """Have every host serve the version also after a restart, before all requests depend on it."""
    changes = {change.host: change.prepared for change in plan.changes}

    def persist(host: Host) -> None:
        run.log_step(host, "persist", version_names(changes[host]))
        run.driver.persist(host, changes[host], run.rollback)

    run.each(list(changes), persist, _AT_ONCE)


def unpin_edges(run: RolloutRun, plan: RolloutPlan) -> None:
    """Let each host choose, for a change from host to host; none may have a version above that
    which the edges give now. Raises FleetError."""
    for host in run.fleet.hosts:
        if host.name in plan.left_out:
            continue
        bases = [v for edge in run.driver.edges_of(host) if (v := plan.base.get(edge))]
        state = read(run, host)
        kept = tuple(v for v in state.serving if not bases or v <= min(bases))
        if state.edge == READY and kept and kept != state.serving:
            run.log_step(host, "trim", f"keeps {version_names(kept)}")
            run.driver.serve(host, kept, rollback=True)
    route_all(run, {edge: Routing() for edge, one in plan.routing.items() if one != Routing()})


def _require_pass(
    run: RolloutRun, plan: RolloutPlan, judge: Judge, desk: OrderDesk, percent: float
) -> None:
    """Watch one step. Raises CanaryFailed unless its verdict is good, or a person promotes it."""
    seconds = run.config.bake_s if percent < 100 else run.config.settle_s
    behind = {
        host.name: host
        for edge in plan.routing
        for host in hosts_behind(run.driver, edge, run.fleet.hosts)
        if host.name not in plan.left_out
    }
    baseline = plan.stable if plan.stable != run.shipment.version else None
    verdict = judge(run.shipment.version, baseline, tuple(behind.values()), seconds, desk.poll)
    run.record("analysis", percent=percent, **verdict.as_json())
    reasons = " ".join(verdict.reasons)
    run.progress("fleet", "judge", f"{percent:g}%: {verdict.outcome}. {reasons}")
    if verdict.outcome == "pass" or desk.promoted:
        return
    # Inconclusive: the judge has waited for more evidence already (rollout.analysis.wait_s).
    word = "" if verdict.outcome == "fail" else " could not be judged"
    raise CanaryFailed(f"{run.shipment} at {percent:g}% of the requests{word}: {reasons}")


def record_counters(run: RolloutRun) -> None:
    """Journal the requests that each version was given so far, and the failed ones."""
    counted = run.driver.counters()
    run.record(
        "counters",
        versions={str(version): [one.requests, one.errors] for version, one in counted.items()},
    )
