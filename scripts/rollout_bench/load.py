"""The part `load`: clients of the running site while versions change and hosts restart.

HTTP and gRPC at once, at a rate that holds whatever the answers do. It needs `scripts/site up` with
a model that has a version before the one in production: `scripts/quickstart` leaves such a site. It
rolls back, deploys again and restarts each host, and leaves the site as it found it.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from conf import compose
from conf.site_schema import site_config
from scripts.box.identity import REPO
from scripts.loadtest.client import Seen
from scripts.loadtest.plan import MAX_REQUESTS, TrafficError, plan_for
from scripts.loadtest.running import Running, start
from scripts.rollout_bench import goals
from scripts.rollout_bench.machines import BenchError
from scripts.rollout_bench.processors import CONTROL, processor_shares
from serving.artifact.golden import GoldenError

STEADY_S = 20.0
SETTLE_S = 3.0
LIMIT_S = 1500.0
_COMMAND_S = 900
YIELDING = ("nice", "-n", "19")
"""Words before fab's: the control host is a machine of its own, and takes no host's cycles."""
STEADY, ROLLBACK, CHANGE, RESTART = "steady", "rollback", "version change", "rolling restart"


@dataclass(frozen=True)
class Phase:
    """A span of the run, in seconds of the monotonic clock."""

    name: str
    began: float
    ended: float


@dataclass(frozen=True)
class LoadFigures:
    """All requests of a run, its phases, and the version in production when it began."""

    seen: tuple[Seen, ...]
    phases: tuple[Phase, ...]
    production: str

    def within(self, phase: Phase) -> list[Seen]:
        """The requests that ended in a phase."""
        return [one for one in self.seen if phase.began <= one.ended < phase.ended]

    def phase(self, name: str) -> Phase | None:
        """The phase called `name`, None where it did not come to it."""
        return next((phase for phase in self.phases if phase.name == name), None)


def measure_load(
    model: str, rate: float, requests: int, cores: float, show: Callable[[str], None]
) -> LoadFigures:
    """Send `rate` requests a second by each protocol until all phases are over and `requests` are
    sent. Each serving host has `cores` of this machine, or all share it where that is 0.
    Raises BenchError where the site is not up, or a command of fab fails."""
    try:
        seconds = min(LIMIT_S, MAX_REQUESTS / rate)
        plans = [
            plan_for(model, grpc=grpc, rate=rate, duration_s=seconds) for grpc in (False, True)
        ]
    except (TrafficError, GoldenError, OSError) as error:
        raise BenchError(f"no traffic: {error}. scripts/quickstart makes a site for it") from error
    site = site_config(compose("site"))
    with processor_shares(site, cores) if cores else nullcontext() as shares:
        running = [start(plan) for plan in plans]
        try:
            fab = partial(_fab, shares.join(CONTROL) if shares else YIELDING)
            phases, production = _phases(running, model, list(site.hosts), fab, show)
            deadline = time.monotonic() + LIMIT_S
            while sum(map(Running.sent, running)) < requests and time.monotonic() < deadline:
                time.sleep(1.0)
        finally:
            for one in running:
                one.cut_short()
            for one in running:
                one.wait()
    seen = [one for client in running for one in client.seen()]
    return LoadFigures(tuple(sorted(seen, key=lambda one: one.ended)), tuple(phases), production)


def _phases(
    running: Sequence[Running], model: str, hosts: Sequence[str],
    fab: Callable[..., None], show: Callable[[str], None],
) -> tuple[list[Phase], str]:  # fmt: skip
    phases: list[Phase] = []

    def phase(name: str, act: Callable[[], object]) -> None:
        began = time.monotonic()
        act()
        phases.append(Phase(name, began, time.monotonic()))
        show(f"{name}: {phases[-1].ended - began:.1f} s")
        time.sleep(SETTLE_S)

    time.sleep(SETTLE_S)
    phase(STEADY, lambda: time.sleep(STEADY_S))
    production = _most_answered(running)
    named = ("--model", model)
    phase(ROLLBACK, lambda: fab("rollback", *named, "--json"))
    phase(CHANGE, lambda: fab("deploy", *named, "--version", production))

    def restart() -> None:
        for host in hosts:
            fab("restart", "--host", host)

    phase(RESTART, restart)
    return phases, production


def _most_answered(running: Sequence[Running]) -> str:
    counts = sum((one.answered_by() for one in running), Counter[str]())
    if not counts:
        raise BenchError("no request was answered: is the site up? scripts/site status")
    return counts.most_common(1)[0][0]


def _fab(join: Sequence[str], *words: str) -> None:
    done = subprocess.run(
        [*join, str(REPO / "scripts/site"), "as", "deploy", "fab", *words], cwd=REPO,
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_COMMAND_S,
    )  # fmt: skip
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = lines[-1] if lines else f"status {done.returncode}"
        raise BenchError(f"fab {' '.join(words)} failed: {reason}")


def load_values(found: LoadFigures) -> dict[str, float]:
    """Values of the goals that these figures answer, by the goals' names."""
    values: dict[str, float] = {
        goals.REQUESTS: len(found.seen),
        goals.FAILED: sum(bool(one.failure) for one in found.seen),
        goals.STALL: longest_gap(found.seen),
    }
    steady = found.phase(STEADY)
    basis = p99_s(found.within(steady)) if steady else None
    for goal, name in ((goals.P99_CHANGE, CHANGE), (goals.P99_RESTART, RESTART)):
        phase = found.phase(name)
        during = p99_s(found.within(phase)) if phase else None
        if basis and during is not None:
            values[goal] = during / basis
    back = found.phase(ROLLBACK)
    if back:
        answered = [one for one in found.within(back) if not one.failure]
        left = [one.ended for one in answered if one.version == found.production]
        new = [one.ended for one in answered if one.version != found.production]
        if new:
            last = max(left, default=back.began)
            values[goals.ROLLBACK] = last - back.began
            values[goals.FLIP] = max(0.0, last - min(new))
    return values


def longest_gap(seen: Sequence[Seen]) -> float:
    """The longest time between two good answers, in seconds; the whole of nothing is endless."""
    ended = sorted(one.ended for one in seen if not one.failure)
    if len(ended) < 2:
        return math.inf
    return max(late - early for early, late in pairwise(ended))


def p99_s(seen: Sequence[Seen]) -> float | None:
    """The 99th percentile of the good answers' latency by nearest rank, None of nothing."""
    ascending = sorted(one.latency_s for one in seen if not one.failure)
    return ascending[math.ceil(0.99 * len(ascending)) - 1] if ascending else None


def load_rows(found: LoadFigures) -> list[tuple[str, ...]]:
    """Rows of a table: phase, seconds, requests, failed, p99 in ms, longest gap in ms."""
    rows: list[tuple[str, ...]] = []
    for phase in found.phases:
        seen = found.within(phase)
        failed, p99 = sum(bool(one.failure) for one in seen), p99_s(seen)
        rows.append((
            phase.name, f"{phase.ended - phase.began:.1f}", str(len(seen)), str(failed),
            "-" if p99 is None else f"{p99 * 1e3:.1f}", f"{longest_gap(seen) * 1e3:.0f}",
        ))  # fmt: skip
    return rows
