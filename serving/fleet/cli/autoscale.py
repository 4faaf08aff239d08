"""`fab autoscale`: capacity follows traffic, by the policy of conf/capacity.yaml.

Where every host of a region serves every model there is one number for a region: each model's
requests a second over the knee of its version, added up, against the policy's target. With a
`site.placement` there is no decision: `fab place`, `fab scale` and a person are. A change goes
through `fab scale`: its plan, its lock and its journal. Nothing is remembered between two rounds;
the cool-down counts from the last change of the region that the journal has, whoever made it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from omegaconf import DictConfig

from conf.errors import DONE, FAILED, INCOMPLETE, LockgateError
from conf.names import nearest, shown
from conf.schema import from_config
from serving.fleet.capacity.demand import demand
from serving.fleet.capacity.region_decision import (
    RegionDecision,
    RegionHosts,
    counting_doubt,
    decide_region,
)
from serving.fleet.cli.capacity import (
    CapacityConfig,
    known_models,
    model_knee,
    read_hosts,
)
from serving.fleet.cli.command import Controls, controls
from serving.fleet.cli.scale import scale_hosts
from serving.fleet.errors import FleetConfigError
from serving.fleet.haproxy.edge import READY
from serving.fleet.inventory import Region
from serving.fleet.report.prometheus import PrometheusClient
from serving.fleet.rollout.records import JournalEvent
from serving.fleet.rollout.rollout_run import Progress
from serving.fleet.ssh.ssh_driver import SshDriver

_AT_ONCE = 8
_PLACED = "models have hosts of their own (site.placement), which one number is not enough for"
_SCALED = ("standby", "admitted")
"""Events of a change of a region's hosts by `fab scale`."""


@dataclass(frozen=True)
class RegionScaling:
    """One region in one round: the decision, and its end. `done` and `failed` are sentences, both
    empty where nothing was to be done or nothing but a plan was wanted."""

    decision: RegionDecision
    done: str = ""
    failed: str = ""


def autoscale(
    config: DictConfig, region: str, plan: bool, progress: Progress
) -> list[RegionScaling]:
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
) -> list[RegionScaling]:
    """Read, decide and, without `plan`, carry out: every region, or the one that is named.

    A region that cannot be read or scaled is named in its result, and holds up no other. Raises
    FleetConfigError.
    """
    decisions = decide_regions(on, settings, region, now_s)
    return [RegionScaling(one) if plan else _scaled(on, one, progress) for one in decisions]


def decide_regions(
    on: Controls, settings: CapacityConfig, region: str, now_s: float
) -> list[RegionDecision]:
    """The decisions; nothing is changed. Raises FleetConfigError."""
    regions = _regions(on, region)
    models = known_models(on)
    if not models:
        raise FleetConfigError("nothing is in production: fab deploy first.")
    knees = {model: model_knee(on, model) for model in models}
    prometheus = PrometheusClient(on.prometheus_url, on.passwords)
    hour = datetime.fromtimestamp(now_s, UTC).hour
    events = on.journal.read_rollouts().entries
    standby, quarantined = on.journal.standby(), on.journal.quarantined()
    with SshDriver(on.fleet, "", on.store, on.config) as driver:
        edges = driver.edge_states()

    def decided(one: Region) -> RegionDecision:
        rates, doubt = read_rates(prometheus, list(knees), one.name, settings.window)
        return decide_region(
            one.name,
            _PLACED if on.fleet.placement else region_hosts(one, edges, standby, quarantined),
            demand(rates, knees),
            doubt,
            settings.policy,
            since_scaled_s(events, one, now_s),
            hour,
        )

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(decided, regions))


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
) -> RegionHosts | str:
    """The hosts that take traffic and those on standby, as `fab scale` counts them; `edges` are
    the states of hosts. A sentence without its end where an edge cannot be read."""
    names = [host.name for host in region.hosts]
    if unread := [name for name in names if name not in edges]:
        return f"an edge does not answer: nobody knows whether {', '.join(unread)} take traffic"
    waiting = [name for name in names if name in standby]
    serving = [name for name in names if edges[name] == READY and name not in waiting]
    taking = [name for name in serving if name not in quarantined]
    return RegionHosts(len(taking), len(taking) + len(waiting))


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


def exit_code(found: Sequence[RegionScaling]) -> int:
    """INCOMPLETE where a change failed, FAILED where a region could not be decided on."""
    if any(one.failed for one in found):
        return INCOMPLETE
    return FAILED if any(one.decision.load is None for one in found) else DONE


def scaling_lines(one: RegionScaling, plan: bool) -> list[str]:
    """Lines for a person."""
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


def autoscale_forever(
    round_once: Callable[[], list[RegionScaling]],
    show: Callable[[list[RegionScaling]], None],
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
