"""One run under drawn faults, to its end; what is broken is healed however this ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from conf.site_schema import Site
from hpc.jobs.run.folder import Run
from hpc.jobs.run.states import OVER
from scripts.train_punish import runs
from scripts.train_punish.drawn_faults import DrawnFault
from scripts.train_punish.failure import PunisherFailed
from scripts.train_punish.faults import (
    HEAL,
    INJECT,
    PunishedJob,
    keep_and_unmount,
    mount_small_disk,
)
from scripts.train_punish.trace import Injected, Look

POLL_S = 0.15
SLURM_POLL_S = 10.0
GIVEN_UP = ("FAILED", "CANCELLED", "COMPLETED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE",
            "OUT_OF_MEMORY")  # fmt: skip
"""Slurm's words for a job that does not start again by itself."""

APART_S = 25.0
"""Slurm finds a job whose batch script went with its node when that node registers again, but for
20 s after the job's start and after its own. A node that boots takes longer, and so it does here;
slurmctld and a node do not fail at one time."""
APART = {"slurmctld": "node", "node": "slurmctld"}

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Punished:
    """The end of a run, its faults, and how it was seen on the way."""

    run: Run
    state: str
    """In its folder, at the end; running for one that was not seen to end."""
    began: float
    ended: float
    looks: Sequence[Look]
    injected: Sequence[Injected]
    missed: int
    """Drawn faults for which the run was over too early."""


@dataclass
class _Broken:
    """The faults not yet healed: kind -> (fault as it was hit, time at which it is healed)."""

    target: PunishedJob
    now: dict[str, tuple[str, float]] = field(default_factory=dict)
    healed: dict[str, float] = field(default_factory=dict)
    """Kind -> time at which it was last healed."""

    def settled(self, kind: str, at: float) -> bool:
        """False while what must not fail together with `kind` is broken, or was until just now."""
        other = APART.get(kind, "")
        return other not in self.now and at >= self.healed.get(other, 0.0) + APART_S

    def heal_due(self, at: float, progress: Progress) -> None:
        for kind, (what, until) in list(self.now.items()):
            if until <= at:
                HEAL[kind](self.target, what)
                del self.now[kind]
                self.healed[kind] = time.time()
                progress(f"healed: {kind} ({what})")

    def heal_all(self, progress: Progress) -> None:
        """Heal what is broken; one that cannot be healed keeps no other from it."""
        failed: list[str] = []
        for kind, (what, _) in self.now.items():
            try:
                HEAL[kind](self.target, what)
                progress(f"healed: {kind} ({what})")
            except (PunisherFailed, OSError) as error:
                failed.append(f"{kind} ({what}): {error}")
        self.now.clear()
        if failed:
            raise PunisherFailed(f"not healed: {'; '.join(failed)}")


def undisturbed(site: Site, run: Run, limit_s: float, status: Progress) -> Punished:
    """Wait for a run that nobody disturbs. Raises `PunisherFailed` where it does not finish."""
    began = time.time()
    looks: list[Look] = []
    state = _watch(site, run, limit_s, looks, status)
    if state != "finished":
        raise PunisherFailed(f"the undisturbed run {run.name} is {state}: lockgate why {run.name}")
    return Punished(run, state, began, time.time(), looks, (), 0)


def punished(
    site: Site, run: Run, plan: Sequence[DrawnFault], limit_s: float,
    progress: Progress, status: Progress,
) -> Punished:  # fmt: skip
    """Release the held `run` and injure it by `plan`, then wait up to `limit_s` for its end.

    The plan's clock begins with the run's first step.
    """
    broken = _Broken(PunishedJob(site, runs.job_id(run), run.checkpoints))
    looks: list[Look] = []
    injected: list[Injected] = []
    left = list(plan)
    began = time.time()
    if any(fault.kind == "disk" for fault in plan):
        mount_small_disk(broken.target.checkpoints, site.users.train)
    try:
        runs.release(site, run)

        def each_time(look: Look) -> bool:
            broken.heal_due(look.at, progress)
            if first := next((one.at for one in looks if one.step), None):
                left[:] = _inject_due(left, look, first, broken, injected, progress)
            return not left

        state = _watch(site, run, plan[-1].at_s + limit_s if plan else limit_s, looks, status,
                       each_time)  # fmt: skip
    finally:
        # A second Ctrl-C must not leave a node down.
        before = {number: signal.signal(number, signal.SIG_IGN)
                  for number in (signal.SIGINT, signal.SIGTERM)}  # fmt: skip
        try:
            broken.heal_all(progress)
            runs.cancel_active(site, run)
            keep_and_unmount(broken.target.checkpoints)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return Punished(run, state, began, time.time(), looks, injected, len(left))


def _inject_due(
    left: Sequence[DrawnFault], look: Look, first: float, broken: _Broken,
    injected: list[Injected], progress: Progress,
) -> list[DrawnFault]:  # fmt: skip
    """Inject the faults whose time has come; returns those that are left.

    One that hits nothing yet, as when a rank is to be killed while the job waits, is tried again;
    and so is one of a kind that is still broken, or that has to wait for another.
    """
    later = []
    for fault in left:
        due = first + fault.at_s <= look.at and fault.kind not in broken.now
        if not due or not broken.settled(fault.kind, look.at):
            later.append(fault)
            continue
        at = time.time()
        what = INJECT[fault.kind](broken.target, fault.choice)
        if what is None:
            later.append(fault)
            continue
        if fault.kind in HEAL:
            broken.now[fault.kind] = (what, at + fault.down_s)
        injected.append(Injected(fault.kind, what, at))
        seconds = f" for {fault.down_s:.0f} s" if fault.kind in HEAL else ""
        progress(
            f"{at - first:6.1f} s  {fault.kind}: {what}{seconds} "
            f"(step {look.step}, attempt {look.attempt})"
        )
    return later


def _watch(
    site: Site, run: Run, limit_s: float, looks: list[Look], status: Progress,
    each_time: Callable[[Look], bool] = lambda _: True,
) -> str:  # fmt: skip
    """Look at the run until it ended, or `limit_s` are over; returns its state.

    `each_time` gets each look, and returns whether nothing more is to be done to the run.
    """
    deadline = time.monotonic() + limit_s
    next_query = 0.0
    while True:
        look, state = runs.look_at(run)
        if not looks or _differs(look, looks[-1]):
            looks.append(look)
            status(f"{run.name}: attempt {look.attempt}, step {look.step}")
        done = each_time(look)
        if state == "finished":
            return state
        now = time.monotonic()
        if now >= next_query and done:
            next_query = now + SLURM_POLL_S
            word = runs.job_state(site, run)
            if word in GIVEN_UP:
                look, state = runs.look_at(run)  # its last words may have come in between
                looks.append(look)
                return state if state in OVER else f"{state}, and its job {word}"
        if now >= deadline:
            return f"{state} after {limit_s:.0f} s"
        time.sleep(POLL_S)


def _differs(look: Look, before: Look) -> bool:
    return replace(look, at=before.at) != before
