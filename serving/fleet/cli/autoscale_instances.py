"""The instances of `fab autoscale`: of each model, for the whole fleet, through `fab scale`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from conf.errors import LockgateError
from serving.fleet.capacity.instance_decision import InstancePolicy, speed, wanted_instances
from serving.fleet.capacity.scaling import ScalePolicy
from serving.fleet.cli.command import Controls
from serving.fleet.cli.scale import packaged_instances, scale_instances
from serving.fleet.rollout.instances import instances_text
from serving.fleet.rollout.records import JournalEvent
from serving.fleet.rollout.rollout_run import Progress


@dataclass(frozen=True)
class InstanceScaling:
    """One model in one round: `count` instances are ordered, `target` are wanted. `done` and
    `failed` are sentences; `undecided` where its load or that of a region is not known."""

    model: str
    count: int
    target: int
    reason: str
    done: str = ""
    failed: str = ""
    undecided: bool = False
    wanted: int = 0

    def lacks(self, plan: bool) -> bool:
        """True while the model may have fewer instances than the load of fewer hosts needs; in a
        plan, where it would have them in time, it lacks none."""
        had = self.target if plan or self.done else self.count
        return self.undecided or self.wanted > had


def host_speeds(
    on: Controls, models: Iterable[str], policy: InstancePolicy, at_most: bool
) -> dict[str, float]:
    """The knee of a host for each model, as a share of the measured one: with `most` instances
    where `at_most`, else with those that it has."""
    if not policy.follows:
        return dict.fromkeys(models, 1.0)
    found = {}
    for model in models:
        packaged = packaged_instances(on, model)
        count = policy.most if at_most else on.journal.instances(model) or packaged
        found[model] = speed(count, packaged, policy.gain)
    return found


def instance_steps(
    on: Controls,
    models: Sequence[str],
    loads: Mapping[str, Mapping[str, float]] | str,
    policy: ScalePolicy,
    now_s: float,
) -> list[InstanceScaling]:
    """The change of each model that has one to make or to wait for. `loads` are those of the
    hosts, a sentence without its end where they are not known."""
    packaged = {model: packaged_instances(on, model) for model in models}
    counts = {model: on.journal.instances(model) or packaged[model] for model in models}
    if isinstance(loads, str):
        why = f"nobody knows how much its hosts bear: {loads}"
        return [InstanceScaling(m, n, n, why, undecided=True) for m, n in counts.items()]
    wanted = wanted_instances(
        loads, counts, packaged, policy.instances, policy.target, policy.hysteresis
    )
    events = on.journal.read_rollouts().entries
    found = []
    for model, count in counts.items():
        want = wanted[model]
        if want == count:
            continue
        fullest = max((one.get(model, 0.0) for one in loads.values()), default=0.0)
        why = f"its fullest host has {fullest:.0%} of a knee of it with {packaged[model]}"
        since = since_ordered_s(events, model, now_s)
        bound = policy.instances.least <= count <= policy.instances.most
        if bound and since < policy.cool_down_s:
            why = f"{why}; {want} are wanted, the last change was {since:.0f} s ago"
            want = count
        found.append(InstanceScaling(model, count, want, why, wanted=wanted[model]))
    return found


def since_ordered_s(events: Iterable[JournalEvent], model: str, now_s: float) -> float:
    """Seconds since the journal's last order of instances of the model; endless without one."""
    ordered = [one.at for one in events if one.event == "scaled" and one.model == model]
    if not ordered:
        return float("inf")
    return max(0.0, now_s - datetime.fromisoformat(ordered[-1]).timestamp())


def scaled_instances(on: Controls, step: InstanceScaling, progress: Progress) -> InstanceScaling:
    """The step, carried out where there is something to do."""
    if step.target == step.count:
        return step
    reason = f"fab autoscale {step.model}: {step.reason}"
    try:
        done = scale_instances(on, step.model, step.target, reason, progress)
    except (LockgateError, OSError) as error:
        return replace(step, failed=str(error))
    return replace(step, done=done)


def instance_lines(one: InstanceScaling, plan: bool) -> list[str]:
    """Lines for a person."""
    if one.undecided:
        return [f"{one.model}: {instances_text(one.count, one.model)}; no decision: {one.reason}."]
    line = f"{one.model}: {instances_text(one.count, one.model)}: {one.reason}."
    if one.target == one.count:
        return [line]
    end = "fab autoscale does it" if plan else one.failed or one.done or "when the hosts are right"
    return [line, f"{one.model}: {one.count} -> {one.target} instances: {end}"]
