"""`lockgate train -m`: the trials of a line, what became of each, and what to type next."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from conf.errors import INCOMPLETE, LockgateError
from hpc.cli.table import aligned
from hpc.cli.train import plan_fields, print_result

MOST_SHOWN = 60
"""Trials that are listed one a line; of more there are counts."""


def submit_sweep(
    configs: Sequence[Any],
    combinations: Sequence[Sequence[str]],
    keys: Sequence[str],
    options: argparse.Namespace,
) -> int:
    """Send what is missing of a sweep; returns the exit code.

    `combinations` are the overrides of each config, `keys` the swept ones among them. Raises
    `ConfigError` and `JobError` where nothing was sent.
    """
    from hpc.jobs.spec.sending import sending_config
    from hpc.jobs.submit import check_sizes, plan, read_installed, waiting_for
    from hpc.jobs.sweep.ledger import ledger_path, newest_lines, read_ledger
    from hpc.jobs.sweep.submission import SweepSubmission, send_missing
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
        return _dry_run(sweep, options)
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


def _dry_run(sweep: Any, options: argparse.Namespace) -> int:
    from hpc.cli.dry_run import forecast_text
    from hpc.jobs.backend import find_backend
    from hpc.jobs.forecast import forecast
    from hpc.jobs.run.swept_values import values_text
    from hpc.jobs.sweep.submission import array_of, shapes

    shown, texts = [], []
    for group in shapes(sweep.trials):
        array, cluster = array_of(sweep.name, group), group[0].plan.cluster
        digests = [one.plan.spec.digest for one in group]
        script = group[0].plan.script
        if len(group) > 1:
            script = find_backend(cluster.kind).array_script(cluster, array, digests)
        expected = forecast([one.plan for one in group], script)
        for one in group:
            fields = {**plan_fields(one.plan), **expected.as_dict(), "script": script}
            shown.append({**fields, "sweep": sweep.name, "values": one.values})
        names = [f"#   {values_text(one.values)}" for one in group]
        texts.append(
            f"{script}\n# sweep {sweep.name}, {len(group)} trials (nothing was submitted)\n"
            + "\n".join(names)
            + f"\n# spec of the first of them\n{group[0].plan.spec.text()}{forecast_text(expected)}"
        )
    print_result(shown, options.json, "\n".join(texts))
    return 0
