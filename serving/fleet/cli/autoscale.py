"""`fab autoscale`: capacity follows traffic, by the policy of conf/capacity.yaml.

Where every host of a region serves every model there is one number for a region: each model's
requests a second over the knee of its version, added up, against the policy's target. With a
`site.placement` each host has a load of its own, and the hosts to move are named. Where instances
follow the load (`autoscale_instances`), hosts are counted as if every model had its most. A change
goes through `fab scale`: its plan, its lock and its journal. Nothing is remembered between two
rounds; a cool-down counts from the last change that the journal has, whoever made it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from omegaconf import DictConfig

from conf.errors import DONE, FAILED, INCOMPLETE, LockgateError
from conf.names import nearest, shown
from conf.schema import from_config
from conf.site_placement import hosts_of
from serving.fleet.capacity.demand import Demand, demand
from serving.fleet.capacity.knee import Knee
from serving.fleet.capacity.placed_decision import PlacedHosts, decide_placed, host_loads
from serving.fleet.capacity.region_decision import (
    RegionDecision,
    RegionHosts,
    counting_doubt,
    decide_region,
)
from serving.fleet.capacity.scaling import ScalePolicy
from serving.fleet.cli.autoscale_instances import (
    InstanceScaling,
    host_speeds,
    instance_lines,
    instance_steps,
    scaled_instances,
)
from serving.fleet.cli.capacity import (
    CapacityConfig,
    known_models,
    model_knee,
    read_hosts,
)
from serving.fleet.cli.command import Controls, controls
from serving.fleet.cli.scale import move_hosts, scale_hosts
from serving.fleet.errors import FleetConfigError
from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Region
from serving.fleet.report.prometheus import PrometheusClient
from serving.fleet.rollout.records import JournalEvent
from serving.fleet.rollout.rollout_run import Progress
from serving.fleet.ssh.ssh_driver import SshDriver

_AT_ONCE = 8
_SCALED = ("standby", "admitted")
"""Events of a change of a region's hosts by `fab scale`."""


@dataclass(frozen=True)
class RegionScaling:
    """One region in one round: the decision, and its end. `done` and `failed` are sentences, both
    empty where nothing was to be done or nothing but a plan was wanted."""

    decision: RegionDecision
    done: str = ""
    failed: str = ""

    @property
    def undecided(self) -> bool:
        """True where no decision was possible."""
        return self.decision.load is None


Scaling = RegionScaling | InstanceScaling


@dataclass(frozen=True)
class RegionTraffic:
    """One region as it was read: its hosts or a sentence, its load, and a doubt about that."""

    region: Region
    hosts: PlacedHosts | str
    found: Demand
    doubt: str


def autoscale(config: DictConfig, region: str, plan: bool, progress: Progress) -> list[Scaling]:
    """One round of a composed `capacity` config; see `autoscale_regions`. Raises ConfigError."""
    settings = from_config(CapacityConfig, config.capacity, "capacity")
    return autoscale_regions(controls(config), settings, region, plan, time.time(), progress)


def autoscale_regions(
    on: Controls,
    settings: CapacityConfig,
    region: str,
    plan: bool,
    now_s: float,
    progress: Progress,
) -> list[Scaling]:
    """Read, decide and, without `plan`, carry out: every region, or the one that is named.

    Models get more instances before any host goes out, and give some up only in a round in which
    no host moves; with a region named they stay as they are, because a number is for the whole
    fleet. A region that cannot be read or scaled is named in its result, and holds up no other.
    Raises FleetConfigError.
    """
    policy = settings.policy
    regions = _regions(on, region)
    models = known_models(on)
    if not models:
        raise FleetConfigError("nothing is in production: fab deploy first.")
    knees = {model: model_knee(on, model) for model in models}
    read = read_regions(on, regions, knees, settings.window)
    speeds = host_speeds(on, models, policy.instances, at_most=not region)
    decisions = [_decided(on, one, knees, speeds, policy, now_s) for one in read]
    instances = []
    if policy.instances.follows and not region:
        instances = instance_steps(on, models, _host_loads(read, decisions), policy, now_s)
    moves = any(one.target != one.serving for one in decisions)
    found: list[Scaling] = []
    for step in instances:
        wait = moves and step.target < step.count
        found.append(step if plan or wait else scaled_instances(on, step, progress))
    late = [one.model for one in instances_of(found) if one.lacks(plan)]
    for made in decisions:
        if made.target < made.serving and late:
            why = f"{made.reason}; not done, {', '.join(late)} has not its instances yet"
            made = replace(made, target=made.serving, out=(), reason=why)
        found.append(RegionScaling(made) if plan else _scaled(on, made, progress))
    return found


def instances_of(found: Iterable[Scaling]) -> list[InstanceScaling]:
    """The results about models."""
    return [one for one in found if isinstance(one, InstanceScaling)]


def read_regions(
    on: Controls, regions: Sequence[Region], knees: Mapping[str, Knee | None], window: str
) -> list[RegionTraffic]:
    """The regions as they are now; nothing is changed."""
    prometheus = PrometheusClient(on.prometheus_url, on.passwords)
    standby, quarantined = on.journal.standby(), on.journal.quarantined()
    with SshDriver(on.fleet, "", on.store, on.config) as driver:
        edges = driver.edge_states()

    def read(one: Region) -> RegionTraffic:
        rates, doubt = read_rates(prometheus, list(knees), one.name, window)
        hosts = region_hosts(one, edges, standby, quarantined)
        if not isinstance(hosts, str):
            names = [host.name for host in one.hosts]
            placed = {model: hosts_of(on.fleet.placement, model, names) for model in knees}
            hosts = replace(hosts, of_model=placed)
        return RegionTraffic(one, hosts, demand(rates, knees), doubt)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(read, regions))


def _decided(
    on: Controls,
    one: RegionTraffic,
    knees: Mapping[str, Knee | None],
    speeds: Mapping[str, float],
    policy: ScalePolicy,
    now_s: float,
) -> RegionDecision:
    """The decision on one region; `speeds` are what a host bears of each model, in its knees."""
    hour = datetime.fromtimestamp(now_s, UTC).hour
    since = since_scaled_s(on.journal.read_rollouts().entries, one.region, now_s)
    loads = {model: load / speeds[model] for model, load in one.found.by_model.items()}
    name, hosts = one.region.name, one.hosts
    if on.fleet.placement and not isinstance(hosts, str) and one.found.load is not None:
        return decide_placed(name, hosts, loads, one.doubt, policy, since, hour)
    found = replace(one.found, load=None if one.found.load is None else sum(loads.values()))
    if not isinstance(hosts, str):
        serving = len(hosts.taking)
        return decide_region(
            name, RegionHosts(serving, serving + len(hosts.waiting)), found, one.doubt, policy,
            since, hour,
        )  # fmt: skip
    return decide_region(name, hosts, found, one.doubt, policy, since, hour)


def _host_loads(
    read: Sequence[RegionTraffic], decisions: Sequence[RegionDecision]
) -> dict[str, dict[str, float]] | str:
    """The load of each host by model, on the hosts that are and that shall be in traffic; a
    sentence without its end where a region cannot be read."""
    found: dict[str, dict[str, float]] = {}
    for one, made in zip(read, decisions, strict=True):
        if isinstance(one.hosts, str) or one.found.load is None:
            return f"{one.region.name}: {made.reason}"
        staying = [host for host in one.hosts.taking if host not in made.out]
        if not made.out:
            staying = staying[: min(made.serving, made.target)]
        found |= host_loads(staying, one.hosts.of_model, one.found.by_model)
    return found


def read_rates(
    prometheus: PrometheusClient, models: Iterable[str], region: str, window: str
) -> tuple[dict[str, float | str], str]:
    """Requests a second of each model in the busiest minute of the window, or a sentence without
    its end; and the doubt about them, "" for none."""
    rates = {model: prometheus.now(busiest_minute(model, region, window)) for model in models}
    logged = prometheus.now(f'sum(rate(lockgate_requests_total{{region="{region}"}}[{window}]))')
    hosts = read_hosts(prometheus, region, window)
    return rates, counting_doubt(logged, hosts.missing or sum(hosts.per_s.values()))


def busiest_minute(model: str, region: str, window: str) -> str:
    """The expression of a model's requests a second in the busiest minute of the window.

    So a rise counts within a minute, and a fall when the window is over.
    """
    counted = f'lockgate_requests_total{{model="{model}",region="{region}"}}'
    return f"max_over_time(sum(rate({counted}[1m]))[{window}:15s])"


def region_hosts(
    region: Region,
    edges: Mapping[str, str],
    standby: Container[str],
    quarantined: Container[str],
) -> PlacedHosts | str:
    """The hosts that take traffic and those on standby, as `fab scale` counts them; `edges` are
    the states of hosts. A sentence without its end where an edge cannot be read."""
    names = [host.name for host in region.hosts]
    if unread := [name for name in names if name not in edges]:
        return f"an edge does not answer: nobody knows whether {', '.join(unread)} take traffic"
    waiting = [name for name in names if name in standby]
    serving = [name for name in names if edges[name] == READY and name not in waiting]
    taking = [name for name in serving if name not in quarantined]
    return PlacedHosts(tuple(taking), tuple(waiting), {})


def since_scaled_s(events: Iterable[JournalEvent], region: Region, now_s: float) -> float:
    """Seconds since the journal's last change of the region's hosts by `fab scale`; endless
    without one.

    An attempt of ours to bring a host in counts too, done or not: one that does not answer is not
    tried every minute.
    """
    names, ours = {host.name for host in region.hosts}, _reason(region.name, "")
    scaled = [
        one.at
        for one in events
        if (one.event in _SCALED and one.host in names)
        or (one.event == "started" and str(one.content.get("reason", "")).startswith(ours))
    ]
    if not scaled:
        return float("inf")
    return max(0.0, now_s - datetime.fromisoformat(scaled[-1]).timestamp())


def exit_code(found: Sequence[Scaling]) -> int:
    """INCOMPLETE where a change failed, FAILED where something could not be decided on."""
    if any(one.failed for one in found):
        return INCOMPLETE
    return FAILED if any(one.undecided for one in found) else DONE


def scaling_lines(one: Scaling, plan: bool) -> list[str]:
    """Lines for a person."""
    if isinstance(one, InstanceScaling):
        return instance_lines(one, plan)
    made = one.decision
    where = f"{made.region}: {made.serving} of {made.there} hosts"
    if made.load is None:
        return [f"{where}; no decision: {made.reason}."]
    lines = [f"{where} bear a load of {made.load:.3g}: {made.reason}."]
    if made.target != made.serving:
        change = f"{made.serving} -> {made.target} hosts"
        if plan:
            lines.append(f"{made.region}: {change}; fab autoscale does it")
        else:
            lines.append(f"{made.region}: {change}: {one.failed or one.done}")
    if made.missing:
        lines.append(
            f"{made.region}: hosts missing: {made.missing}. Type: fab add HOST --address ADDRESS "
            f"--region {made.region}"
        )
    return lines


def scaling_key(one: Scaling) -> tuple[object, ...]:
    """The part of a result that makes a round worth a line: reasons change with every request."""
    if isinstance(one, InstanceScaling):
        return one.model, one.count, one.target, one.failed, one.undecided
    made = one.decision
    return made.serving, made.target, made.missing, one.failed, one.undecided


def autoscale_forever(
    round_once: Callable[[], list[Scaling]],
    show: Callable[[list[Scaling]], None],
    complain: Callable[[str], None],
    wait: Callable[[], None],
) -> str:
    """Round after round until Ctrl-C in a wait; returns a sentence.

    A mistake that the first round finds ends it. One that a later round finds, in a file that was
    changed since, is named, and the next round reads the file again.
    """
    found = round_once()
    rounds, changes = 0, 0
    while True:
        rounds += 1
        changes += sum(bool(one.done) for one in found)
        show(found)
        try:
            wait()
        except KeyboardInterrupt:
            return f"stopped after {rounds} rounds and {changes} changes; the fleet stays as it is."
        try:
            found = round_once()
        except (LockgateError, OSError) as error:
            complain(str(error))
            found = []


def _scaled(on: Controls, made: RegionDecision, progress: Progress) -> RegionScaling:
    if made.target == made.serving:
        return RegionScaling(made)
    try:
        reason = _reason(made.region, made.reason)
        if made.into or made.out:
            moved = move_hosts(on, made.region, made.into, made.out, made.target, reason, progress)
            return RegionScaling(made, moved)
        return RegionScaling(made, scale_hosts(on, made.region, made.target, reason, progress))
    except (LockgateError, OSError) as error:
        return RegionScaling(made, failed=str(error))


def _reason(region: str, why: str) -> str:
    """The reason of a change in the journal."""
    return f"fab autoscale {region}: {why}"


def _regions(on: Controls, region: str) -> list[Region]:
    names = [one.name for one in on.fleet.regions]
    if region and region not in names:
        known = nearest(region, names)
        raise FleetConfigError(f"the fleet has no region {shown(region)}. {known}.")
    return [one for one in on.fleet.regions if region in ("", one.name)]
