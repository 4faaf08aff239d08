"""`fab autoscale --simulate`: the policy against traffic that is recorded or drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from conf.names import nearest, shown
from conf.schema import from_config
from serving.fleet.capacity.instance_decision import speed
from serving.fleet.capacity.knee import Knee
from serving.fleet.capacity.recorded_traffic import log_lines, recorded_traffic
from serving.fleet.capacity.replay import Replay, ReplaySettings, replay, replay_line
from serving.fleet.capacity.traffic import DRAWN_MODEL, MINUTE_S, TrafficTrace, draw_traffic
from serving.fleet.cli.capacity import CapacityConfig, known_models, model_knee
from serving.fleet.cli.command import Controls, controls
from serving.fleet.cli.scale import packaged_instances
from serving.fleet.cli.tables import plain_table
from serving.fleet.errors import FleetConfigError

if TYPE_CHECKING:
    from rich.table import Table

FIRST_DAY = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
"""Drawn traffic begins on a Monday."""
MOST_DAYS = 366


@dataclass(frozen=True)
class Replays:
    """The replay of each region, and lines about what it stands on."""

    regions: tuple[Replay, ...]
    notes: tuple[str, ...]
    most: int


def replays(
    config: DictConfig, region: str, days: int, seed: int, traffic: str, every_s: float
) -> Replays:
    """Replays of the traffic in the file `traffic`, or of drawn one where it is "".

    Raises ConfigError, FleetConfigError, OSError.
    """
    settings = from_config(CapacityConfig, config.capacity, "capacity")
    packaged: dict[str, int] = {}
    if traffic:
        found, note = _recorded(Path(traffic), region)
        on = controls(config)
        knees = _knees(on, found)
        packaged = {model: packaged_instances(on, model) for model, knee in knees.items() if knee}
    else:
        found, note = _drawn(settings, region, days, seed)
        knees = {DRAWN_MODEL: None}
    notes, stated = [note], settings.simulation.knee_per_s
    if assumed := [model for model, knee in knees.items() if knee is None]:
        notes.append(f"{', '.join(assumed)}: a host bears {stated:g} requests/s, by knee_per_s.")
    minutes = ReplaySettings(
        _minutes(every_s), _minutes(settings.window_s), _minutes(settings.simulation.host_ready_s)
    )
    most = settings.policy.instances
    if most.follows:
        notes.append(
            f"hosts are counted with {most.most} instances of each model (capacity.policy)."
        )
    known = {
        model: Knee(
            (knee.requests_per_s if knee else stated)
            * (speed(most.most, packaged.get(model, 1), most.gain) if most.follows else 1.0),
            knee.basis if knee else "knee_per_s",
        )
        for model, knee in knees.items()
    }
    made = tuple(replay(name, one, known, settings.policy, minutes) for name, one in found.items())
    return Replays(made, tuple(notes), settings.policy.most)


def replays_table(found: Replays) -> Table:
    """A row for each region."""
    columns = (
        "region", "hours", "hosts", "above the knee", "minutes", "host-hours", "always the peak's",
        f"always {found.most}", "changes", "longest wait",
    )  # fmt: skip
    table = plain_table("\n".join(found.notes), columns)
    for one in found.regions:
        table.add_row(
            one.region, f"{one.minutes / 60:.3g}", f"{one.fewest}-{one.highest}",
            f"{one.over_knee:.3%}", f"{one.minutes_over:.3%}", f"{one.host_hours:.0f}",
            f"{one.peak_host_hours:.0f}", f"{one.most_host_hours:.0f}", str(one.changes),
            f"{one.longest_wait_s} s",
        )  # fmt: skip
    return table


def replays_lines(found: Replays) -> list[str]:
    """Lines for a person."""
    return [*found.notes, *(replay_line(one, found.most) for one in found.regions)]


def _drawn(
    settings: CapacityConfig, region: str, days: int, seed: int
) -> tuple[dict[str, TrafficTrace], str]:
    if not 1 <= days <= MOST_DAYS:
        raise FleetConfigError(f"--days {days}: type 1 to {MOST_DAYS}, as in --days 28.")
    shape = settings.simulation.drawn
    note = f"traffic drawn from seed {seed}, {shape.mean_per_s:g} requests/s in the mean."
    return {region or DRAWN_MODEL: draw_traffic(shape, days, seed, FIRST_DAY)}, note


def _recorded(path: Path, region: str) -> tuple[dict[str, TrafficTrace], str]:
    found = recorded_traffic(log_lines(path))
    if not found.regions:
        raise FleetConfigError(
            f"{path} has no answered inference request: {found.odd} lines are not of an edge's "
            f"request log, {found.other} are about something else."
        )
    if region and region not in found.regions:
        known = nearest(region, found.regions)
        raise FleetConfigError(f"{path} has no region {shown(region)}. {known}.")
    note = (
        f"{found.requests} requests of {path.name}; {found.other} lines about something else and "
        f"{found.odd} that are not of the log were passed over."
    )
    return {name: one for name, one in found.regions.items() if region in ("", name)}, note


def _knees(on: Controls, found: Mapping[str, TrafficTrace]) -> dict[str, Knee | None]:
    """The knee of each recorded model; None for one without a measured version in production."""
    known = known_models(on)
    models = sorted({model for one in found.values() for model in one.per_s})
    return {model: model_knee(on, model) if model in known else None for model in models}


def _minutes(seconds: float) -> int:
    return max(1, round(seconds / MINUTE_S))
