"""The watch on a canary: golden questions to it and to its baseline, alternately, host by host.

One thread per host asks and reads its memory; the caller's thread reads the edges' counters, looks
at the evidence so far, and stops early where it condemns the canary. Nothing is changed anywhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, zip_longest
from typing import Protocol

from serving.fleet.canary.analysis import LOOKS, judge_canary, needs_more
from serving.fleet.canary.evidence import (
    CanaryEvidence,
    MemorySample,
    ProbeSample,
    PrometheusReading,
    VersionEvidence,
)
from serving.fleet.canary.limits import CanaryLimits
from serving.fleet.errors import FleetError
from serving.fleet.inventory import Host
from serving.fleet.routing import VersionCounters

PrometheusReader = Callable[[int, int, float], PrometheusReading]
"""`read(canary, baseline, seconds)`: both versions over the last seconds. Never raises."""
_TICK_S, _CHECK_S, _MEMORY_S = 0.2, 1.0, 2.0
_FIRST_LOOK = 12
"""Questions to the canary before the first look; each next look is at twice as many."""
_PAIRS_PER_S = 1.0
"""Pace of a host that has had its `min_probes`, in pairs of questions."""
_MEMORY_SAMPLES = 8
"""Readings of a host's memory while it gets its `min_probes`, and again over the watch."""
_LOST_AFTER = 3
"""Questions in a row that did not reach a host; then it is asked no more."""


class ProbedFleet(Protocol):
    """The fleet as the watch sees it. Methods raise FleetError."""

    def probe(self, host: Host, version: int) -> ProbeSample:
        """Put one golden question to one version on one host."""

    def counters(self) -> Mapping[int, VersionCounters]:
        """Requests of clients by version, summed over the edges."""

    def memory_bytes(self, host: Host) -> int | None:
        """Resident memory of Triton and its stubs; None where the host did not report it."""


@dataclass
class _Asked:
    """One host and what was measured on it so far; its thread alone changes it."""

    host: Host
    samples: dict[int, list[ProbeSample]]
    memory: list[MemorySample] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True)
class _Watch:
    """One watch as it goes on; `over` ends it for every thread."""

    fleet: ProbedFleet
    canary: int
    baseline: int | None
    limits: CanaryLimits
    asked: tuple[_Asked, ...]
    began: float
    before: Mapping[int, VersionCounters] | str
    memory_every_s: float
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


def probed_hosts(hosts: Sequence[Host], count: int) -> tuple[Host, ...]:
    """`count` of `hosts` at most: the first of every region, then the second of each, and so on."""
    regions: dict[str, list[Host]] = {}
    for host in hosts:
        regions.setdefault(host.region, []).append(host)
    turns = [host for turn in zip_longest(*regions.values()) for host in turn if host is not None]
    return tuple(turns[:count])


def gather(
    fleet: ProbedFleet,
    hosts: Sequence[Host],
    canary: int,
    baseline: int | None,
    seconds: float,
    limits: CanaryLimits,
    poll: Callable[[], None] = lambda: None,
    prometheus: PrometheusReader | None = None,
) -> CanaryEvidence:
    """The evidence of a watch of `seconds` on `canary`, which every host of `hosts` has loaded.

    Shorter where the evidence condemns the canary; longer, by `limits.wait_s` at most, while there
    is too little. Each host is asked one question at a time, for `limits.probe_share` of the time.
    `poll` is called about five times a second, and raises to stop the watch.
    """
    versions = [canary] if baseline is None else [canary, baseline]
    watch = _Watch(
        fleet, canary, baseline, limits,
        asked=tuple(_Asked(host, {version: [] for version in versions}) for host in hosts),
        began=time.monotonic(), before=_read_counters(fleet),
        memory_every_s=max(_MEMORY_S, seconds / _MEMORY_SAMPLES),
    )  # fmt: skip
    threads = [threading.Thread(target=_ask_host, args=(watch, one)) for one in watch.asked]
    for thread in threads:
        thread.start()
    try:
        _follow(watch, seconds, poll)
    finally:
        watch.over.set()
        for thread in threads:
            thread.join()
    reading = prometheus(canary, baseline, watch.seconds) if prometheus and baseline else None
    return _evidence(watch, reading)


def _follow(watch: _Watch, seconds: float, poll: Callable[[], None]) -> None:
    """Return when the watch is over: condemned, or long enough."""
    looks, next_look, next_check_s = 0, _FIRST_LOOK, seconds
    while not watch.over.wait(_TICK_S):
        poll()
        if all(one.problem for one in watch.asked):
            return
        if watch.seconds >= seconds + watch.limits.wait_s:
            return
        asked = sum(len(one.samples[watch.canary]) for one in watch.asked)
        if looks < LOOKS and asked >= next_look:
            looks, next_look = looks + 1, 2 * asked
            if judge_canary(_evidence(watch), watch.limits, interim=True).outcome == "fail":
                return
        if watch.seconds >= next_check_s:
            next_check_s = watch.seconds + _CHECK_S
            if not needs_more(_evidence(watch), watch.limits):
                return


def _ask_host(watch: _Watch, asked: _Asked) -> None:
    """Ask one host until the watch is over: canary, baseline, baseline, canary, and so on.

    So neither version comes first, and what drifts meanwhile bears on both alike.
    """
    order = list(asked.samples)
    every = max(1, watch.limits.min_probes // _MEMORY_SAMPLES)
    for pair in count():
        if watch.over.is_set():
            return
        began = time.monotonic()
        for version in order:
            if not watch.over.is_set() and not _ask_version(watch, asked, version):
                return
        order.reverse()
        took = time.monotonic() - began
        pause_s = took * (1 / watch.limits.probe_share - 1)
        if pair >= watch.limits.min_probes:
            pause_s = max(pause_s, 1 / _PAIRS_PER_S - took)
        read_s = asked.memory[-1].at_s if asked.memory else 0.0
        if pair % every == 0 or watch.seconds >= read_s + watch.memory_every_s:
            _read_memory(watch, asked)
        watch.over.wait(pause_s)


def _ask_version(watch: _Watch, asked: _Asked, version: int) -> bool:
    """Put one question; False where the host is lost. One wrong answer ends the whole watch."""
    for left in reversed(range(_LOST_AFTER)):
        try:
            sample = watch.fleet.probe(asked.host, version)
        except FleetError as error:
            if left == 0 or watch.over.wait(_TICK_S):
                asked.problem = str(error)
                return False
        else:
            asked.samples[version].append(sample)
            if sample.wrong and version == watch.canary:
                watch.over.set()
            return True
    return False


def _read_memory(watch: _Watch, asked: _Asked) -> None:
    try:
        resident_bytes = watch.fleet.memory_bytes(asked.host)
    except FleetError:
        return  # the next question finds out whether the host is lost
    if resident_bytes is not None:
        asked.memory.append(MemorySample(watch.seconds, resident_bytes))


def _read_counters(fleet: ProbedFleet) -> Mapping[int, VersionCounters] | str:
    """The counters, or a sentence on why they cannot be read."""
    try:
        return fleet.counters()
    except FleetError as error:
        return f"the edges' counters were not read: {error}"


def _evidence(watch: _Watch, prometheus: PrometheusReading | None = None) -> CanaryEvidence:
    """Everything up to now."""
    now = _read_counters(watch.fleet)
    remarks = [one.problem for one in watch.asked if one.problem]
    remarks += [one for one in (watch.before, now) if isinstance(one, str)][:1]

    def of(version: int) -> VersionEvidence:
        probes = {one.host.name: tuple(one.samples[version]) for one in watch.asked}
        if isinstance(now, str) or isinstance(watch.before, str):
            return VersionEvidence(probes)
        none = VersionCounters(0, 0)
        requests = now.get(version, none).since(watch.before.get(version, none))
        return VersionEvidence(probes, requests)

    return CanaryEvidence(
        of(watch.canary),
        None if watch.baseline is None else of(watch.baseline),
        {one.host.name: tuple(one.memory) for one in watch.asked},
        prometheus,
        watch.seconds,
        tuple(remarks),
    )
