"""Faults at random while a run trains, and that run compared with an undisturbed one.

    scripts/punish train [--mtbf 20s] [--for 10m] [--kinds rank,node,slurmctld,mlflow,disk]
                         [--seed N] [--steps N] [--task NAME] [--json]

It wants the running site (scripts/site up), as root. One run trains undisturbed, then another of
the same line while ranks, nodes, slurmctld, MLflow and the disk below its checkpoints fail at
times drawn from an exponential distribution. Then weights, curve and MLflow's points are compared
bit by bit. Both runs stay. Exit code 1 when a goal does not hold, 2 when it could not begin.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import Console

from conf import LockgateError, compose
from conf.errors import INTERRUPTED
from conf.site_schema import Site, site_config
from hpc.jobs.run.folder import Run
from scripts.goals import figures_table, goals_table, print_goals
from scripts.train_punish import runs
from scripts.train_punish.drawn_faults import KINDS, drawn_faults, duration_s, fault_kinds
from scripts.train_punish.punish import Progress, Punished, punished, undisturbed
from scripts.train_punish.trace import cost_rows, costs
from scripts.train_punish.verdict import verdict

T = TypeVar("T")
COLUMNS = ("fault", "injected", "comebacks", "s until it trained: median / most",
           "steps lost: all / most")  # fmt: skip
STEPS_PER_S = 4
"""Of a run under faults: most of its time it comes back."""
MOST_STEPS = 1_000_000
LIMIT_S = 900
"""Longest time after the last fault until the run has to have ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the punisher; returns the exit code."""
    given = _arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(stderr=True, highlight=False)
    sent: list[Run] = []
    site = site_config(compose("site"))
    try:
        runs.check_site(site)
        return _punish(site, given, console, sent)
    except LockgateError as error:
        print(f"scripts/punish: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("scripts/punish: interrupted; what was broken is healed", file=sys.stderr)
        return INTERRUPTED
    finally:
        _leave(site, sent)


def _punish(site: Site, given: argparse.Namespace, console: Console, sent: list[Run]) -> int:
    plan = drawn_faults(given.kinds, given.mtbf, given.length, given.seed)
    steps = given.steps or max(200, round(given.length * STEPS_PER_S))
    task = runs.prepared_task(site, given.task)

    def progress(line: str) -> None:
        console.print(line, markup=False)

    progress(f"seed {given.seed}: {len(plan)} faults in {given.length:.0f} s; {steps} steps")
    settings = [f"steps={steps}"]
    sent.append(reference := runs.submit(site, task, settings))
    progress(f"undisturbed: {reference.name}")
    whole = _shown(console, lambda status: undisturbed(site, reference, LIMIT_S, status))
    progress(f"undisturbed: finished in {whole.ended - whole.began:.0f} s")
    sent.append(run := runs.submit(site, task, settings, held=True))
    progress(f"punished: {run.name}")
    hurt = _shown(console, lambda status: punished(site, run, plan, LIMIT_S, progress, status))
    progress(f"punished: {hurt.state} after {hurt.ended - hurt.began:.0f} s")
    return _report(site, given, whole, hurt)


def _report(site: Site, given: argparse.Namespace, whole: Punished, hurt: Punished) -> int:
    found = costs(hurt.looks, hurt.injected)
    goals, lines = verdict(site, given.kinds, whole, hurt, found)
    for line in lines:
        print(f"scripts/punish: {line}", file=sys.stderr)
    if hurt.missed:
        print(f"scripts/punish: the run was over before {hurt.missed} more faults; a larger "
              "--steps has room for them", file=sys.stderr)  # fmt: skip
    table = figures_table("Faults", COLUMNS, cost_rows(given.kinds, found))
    return print_goals(goals, [table, goals_table(goals)], [], given.json)


def _shown(console: Console, watched: Callable[[Progress], T]) -> T:
    """The result of `watched`, whose progress is one living line on a terminal."""
    if not console.is_terminal:
        return watched(lambda _: None)
    with console.status("waits to start") as line:
        return watched(line.update)


def _leave(site: Site, sent: Sequence[Run]) -> None:
    """Cancel what still runs, and name what stays."""
    for run in sent:
        runs.cancel_active(site, run)
    if sent:
        names = " ".join(run.name for run in sent)
        print(f"scripts/punish: it leaves the runs {names}", file=sys.stderr)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/punish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["train"])
    parser.add_argument("--mtbf", type=_value(duration_s), default="20s", help="mean time between")
    parser.add_argument("--for", dest="length", type=_value(duration_s), default="10m")
    parser.add_argument("--kinds", type=_value(fault_kinds), default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=1, help="of the plan of faults")
    parser.add_argument("--steps", type=int, default=0, help="of the runs; default: by --for")
    parser.add_argument("--task", default="", help="one whose dataset is prepared on the site")
    parser.add_argument("--json", action="store_true", help="print the goals as JSON, no table")
    given = parser.parse_args(argv)
    if not 0 <= given.steps <= MOST_STEPS:
        parser.error(f"--steps {given.steps}: choose 1 to {MOST_STEPS}")
    return given


def _value(read: Callable[[str], T]) -> Callable[[str], T]:
    """`read` for argparse, which shows the sentence of this error only."""

    def checked(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


if __name__ == "__main__":
    sys.exit(main())
