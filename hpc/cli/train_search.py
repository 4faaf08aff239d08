"""`lockgate train -m sweeper=optuna`: values are chosen one after another; the command stays."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from conf import ConfigError
from hpc.cli.drive_sweep import drive
from hpc.jobs.spec.sending import sending_config
from hpc.jobs.spec.sweeper import SweeperConfig
from hpc.jobs.submit import ready_backend
from hpc.jobs.sweep.driver import SweepDriver, standings_so_far
from hpc.jobs.sweep.search import PARALLEL, make_search, search_name
from hpc.jobs.sweep.standings import SweepStandings
from hpc.jobs.sweep.submission import SweepSubmission


def submit_search(
    overrides: Sequence[str], sweeper: SweeperConfig, options: argparse.Namespace
) -> int:
    """Send trials until there are enough, or show the first ones; returns the exit code.

    Raises `ConfigError` and `JobError`.
    """
    if options.retry_failed:
        raise ConfigError(
            "--retry-failed: Optuna chooses other values in place of those that failed; raise "
            "sweeper.trials"
        )
    search = make_search(overrides, sweeper)
    (first,) = search.trials(search.next(SweepStandings("", None, None, ()), 1).points)
    name = search_name(_typed_name(overrides), search, first)
    runs = first.plan.run.folder.parent
    parallel = first.plan.cluster.sweep_parallel or PARALLEL
    if options.dry_run:
        from hpc.cli.dry_sweep import show_sweep

        step = search.next(standings_so_far(runs, name), parallel)
        sweep = SweepSubmission(name, search.trials(step.points) or [first])
        axes = [f"{axis.key} = {axis.words}" for axis in search.axes]
        return show_sweep(sweep, axes, options.json, total=sweeper.trials)
    ready_backend(first.plan)  # before a folder is made that this user may not share
    return drive(SweepDriver(runs, name, sweeper, search, parallel), options.json)


def _typed_name(overrides: Sequence[str]) -> str | None:
    typed = [text.partition("=")[2] for text in overrides if text.startswith("sweep=")]
    return sending_config({"sweep": typed[-1] if typed else None}).sweep
