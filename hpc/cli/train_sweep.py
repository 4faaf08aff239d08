"""`lockgate train -m`: the trials of a line, what became of each, and what to type next."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from conf.errors import INCOMPLETE, LockgateError
from hpc.cli.table import aligned
from hpc.cli.train import print_result

if TYPE_CHECKING:
    from hpc.jobs.spec.sweeper import SweeperConfig

MOST_SHOWN = 60
"""Trials that are listed one a line; of more there are counts."""
MOST_VALUES = 8
"""Values of one key that are named in a dry run."""


def submit_sweep(
    configs: Sequence[Any],
    combinations: Sequence[Sequence[str]],
    keys: Sequence[str],
    sweeper: SweeperConfig,
    options: argparse.Namespace,
) -> int:
    """Send what is missing of a sweep; returns the exit code.

    `combinations` are the overrides of each config, `keys` the swept ones among them. Where
    trials are stopped early, the command stays to the end. Raises `ConfigError` and `JobError`
    where nothing was sent.
    """
    from hpc.jobs.spec.sending import sending_config
    from hpc.jobs.submit import check_sizes, plan, read_installed, waiting_for
    from hpc.jobs.sweep.ledger import ledger_path, newest_lines, read_ledger
    from hpc.jobs.sweep.standings import ObjectiveFile, write_objective
    from hpc.jobs.sweep.submission import SweepSubmission, send_missing, summary
    from hpc.jobs.sweep.trials import Trial, sweep_name, trial_values

    sending, installed, now = sending_config(configs[0]), read_installed(), datetime.now(UTC)
    plans = waiting_for([plan(config, now, installed) for config in configs], sending)
    runs = plans[0].run.folder.parent
    # All of a sweep is valid before any of it is sent.
    check_sizes(plans)
    if sending.sweep is not None:  # values that a line names alone, and another line sweeps over
        before = newest_lines(read_ledger(ledger_path(runs, sending.sweep))).values()
        typed = {text.partition("=")[0] for text in combinations[0]}
        known = [key for line in before for key in line.values if key in typed]
        keys = list(dict.fromkeys([*keys, *known]))
    trials = merged(
        [
            Trial(ready, trial_values(config, words, keys))
            for ready, config, words in zip(plans, configs, combinations, strict=True)
        ]
    )
    sweep = SweepSubmission(sweep_name(sending.sweep, trials), trials)
    if options.dry_run:
        from hpc.cli.dry_sweep import show_sweep

        return show_sweep(sweep, axis_texts(trials), options.json)
    try:
        send_missing(sweep, runs, options.retry_failed)
    except LockgateError as error:
        if not sweep.outcomes:
            raise
        _print(sweep, options)  # what was sent before something went wrong is sent, and shown
        raise PartlySent(f"{error} {_next_step(sweep)}") from error
    except BaseException:
        if sweep.outcomes:
            _print(sweep, options)
        raise
    if sweeper.watches:
        from hpc.cli.drive_sweep import drive
        from hpc.jobs.sweep.driver import SweepDriver

        print(summary(sweep), file=sys.stderr, flush=True)
        return drive(SweepDriver(runs, sweep.name, sweeper, None), options.json)
    write_objective(runs, sweep.name, ObjectiveFile(sweeper.metric, sweeper.direction))
    _print(sweep, options)
    return 0


class PartlySent(LockgateError):
    """A sweep of which some trials are in, and some are not."""

    exit_code = INCOMPLETE


def merged(trials: Sequence[Any]) -> list[Any]:
    """The trials without repetitions, whose number goes to standard error."""
    unique: dict[str, Any] = {}
    for trial in trials:
        unique.setdefault(trial.plan.spec.digest, trial)
    if repeated := len(trials) - len(unique):
        print(f"lockgate: merged as repetitions: {repeated} of {len(trials)} runs", file=sys.stderr)
    return list(unique.values())


def _print(sweep: Any, options: argparse.Namespace) -> None:
    from hpc.jobs.sweep.submission import ENDED, summary

    for note in sweep.notes:
        print(f"lockgate: {note}", file=sys.stderr)
    lines = [summary(sweep), *_table(sweep)]
    if sweep.count(ENDED) and not options.retry_failed:
        lines.append("  send those that ended again: the same line with --retry-failed")
    lines.append(f"  see them: lockgate ls --sweep {sweep.name}")
    print_result(
        [_fields(sweep.name, one) for one in sweep.in_order], options.json, "\n".join(lines)
    )


def _table(sweep: Any) -> list[str]:
    from hpc.jobs.run.swept_values import values_text

    rows = [
        [
            "",
            values_text(one.trial.values) or "-",
            one.run.name if one.run else "-",
            one.outcome + (f", {one.state}" if one.state else ""),
            f"job {one.job_id}" if one.job_id else "",
        ]
        for one in sweep.in_order
    ]
    return aligned(rows[:MOST_SHOWN]) + (
        [f"  and {len(rows) - MOST_SHOWN} more"] if len(rows) > MOST_SHOWN else []
    )


def _next_step(sweep: Any) -> str:
    from hpc.jobs.sweep.submission import NOT_SENT

    missing = sweep.count(NOT_SENT)
    return (
        f"Of the sweep {sweep.name}, {len(sweep.trials) - missing} trials are in and {missing} are "
        "not; type the same line again to send those that are missing."
    )


def _fields(name: str, one: Any) -> dict[str, Any]:
    spec = one.trial.plan.spec
    return {
        "sweep": name,
        "values": one.trial.values,
        "outcome": one.outcome,
        "run": one.run.name if one.run else None,
        "job_id": one.job_id or None,
        "state": one.state or None,
        "folder": str(one.run.folder) if one.run else None,
        "spec_digest": spec.digest,
        "source_digest": spec.source.digest,
        "project_digest": spec.project.digest if spec.project else None,
        "dataset_digest": spec.dataset.digest,
    }


def axis_texts(trials: Sequence[Any]) -> list[str]:
    """`optim.lr = 0.001, 0.0003 (2 values)` for each swept key of a grid."""
    lines = []
    for key in trials[0].values:
        values = list(dict.fromkeys(str(one.values.get(key)) for one in trials))
        shown = ", ".join(values[:MOST_VALUES]) + (", ..." if len(values) > MOST_VALUES else "")
        lines.append(f"{key} = {shown} ({len(values)} value{'s' * (len(values) != 1)})")
    return lines
