"""One model in one region: its load against the knee of its hosts, and how many may fail."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from serving.fleet.capacity.growth import day_of_limit
from serving.fleet.capacity.knee import Knee
from serving.fleet.capacity.scaling import ScaleDecision, ScalePolicy, scale_decision


@dataclass(frozen=True)
class RegionLoad:
    """Requests a second of one model at one region's edges: now, and each day's peak.

    `missing` is a sentence where they could not be read.
    """

    now_per_s: float | None = None
    peaks: tuple[tuple[float, float], ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class Headroom:
    """The capacity of one region for one model; None for what is not known, said in `unknown`.

    `share` is the highest peak against the knees of all hosts, `may_fail` the number of hosts that
    may be away at that peak, `full_on` the date at which growth meets the knees of all hosts.
    """

    model: str
    region: str
    hosts: int
    now_per_s: float | None
    peak_per_s: float | None
    knee_per_host: float | None
    share: float | None
    may_fail: int | None
    full_on: str | None
    decision: ScaleDecision | None
    unknown: tuple[str, ...] = ()


def headroom(
    model: str,
    region: str,
    hosts: int,
    knee: Knee | None,
    load: RegionLoad,
    policy: ScalePolicy,
    now_s: float,
) -> Headroom:
    """The capacity of `hosts` hosts in a region for one model under `load`."""
    values = [value for _, value in load.peaks]
    values += [load.now_per_s] if load.now_per_s is not None else []
    peak = max(values, default=None)
    unknown = []
    if knee is None:
        unknown.append("no gate of the version in production measured how much a host bears")
    if load.missing:
        unknown.append(load.missing)
    share = may_fail = full_on = decision = None
    if knee is not None and peak is not None:
        share = peak / (hosts * knee.requests_per_s) if hosts else math.inf
        may_fail = hosts_to_spare(hosts, peak, knee.requests_per_s)
        at = day_of_limit(load.peaks, hosts * knee.requests_per_s, now_s)
        full_on = None if at is None else datetime.fromtimestamp(at, UTC).date().isoformat()
        hour = datetime.fromtimestamp(now_s, UTC).hour
        decision = scale_decision(policy, hosts, peak / knee.requests_per_s, math.inf, hour)
    return Headroom(
        model, region, hosts, load.now_per_s, peak, knee.requests_per_s if knee else None,
        share, may_fail, full_on, decision, tuple(unknown),
    )  # fmt: skip


def hosts_to_spare(hosts: int, load_per_s: float, knee_per_s: float) -> int:
    """Hosts that may be away while the others bear the load below their knees; 0 at least."""
    return max(0, hosts - max(1, math.ceil(load_per_s / knee_per_s)))


def headroom_line(one: Headroom) -> str:
    """One line for a person."""
    where = f"{one.model} in {one.region}: {one.hosts} hosts"
    if one.share is None:
        now = "" if one.now_per_s is None else f", {one.now_per_s:.3g} requests/s now"
        return f"{where}{now}; capacity unknown: {'; '.join(one.unknown)}."
    full = f"; full on {one.full_on} at this growth" if one.full_on else ""
    advice = f"; {one.decision.reason}" if one.decision else ""
    return (
        f"{where} at {one.share:.0%} of their knee ({one.peak_per_s:.3g} of at least "
        f"{one.hosts * (one.knee_per_host or 0):.3g} requests/s at the peak), {one.may_fail} may "
        f"fail{full}{advice}."
    )
