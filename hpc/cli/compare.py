"""`lockgate compare RUN RUN ...`: the settings in which runs differ, and their metrics."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpc.cli.table import print_table

if TYPE_CHECKING:
    from hpc.jobs.run.comparison import ComparedRun

SIDE_BY_SIDE = 4
"""Runs that are columns of the table; more of them are its rows."""
DESCRIPTION = """\
Compare runs: only the settings in which they differ, the digests of code and data, the last and
the best value of each metric, and the time of a step. A run whose spec is broken is shown so.
"""


def main(argv: Sequence[str]) -> int:
    """Run `lockgate compare ARGV`. Raises `ConfigError` for fewer than two runs."""
    parser = argparse.ArgumentParser(prog="lockgate compare", description=DESCRIPTION)
    parser.add_argument("words", nargs="+", metavar="RUN", help="two names of runs, or more")
    parser.add_argument("--by", metavar="METRIC", help="sort by its best value, the best first")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_intermixed_args(list(argv))
    from conf import ConfigError
    from hpc.cli.site import run_words, runs_folder
    from hpc.jobs.queue import run_states
    from hpc.jobs.run.comparison import compared_run, differing_settings, sorted_runs
    from hpc.jobs.run.folder import find_runs

    words, overrides = run_words(options.words, "compare")
    found = list(dict.fromkeys(find_runs(runs_folder(overrides), words)))
    if len(found) < 2:
        raise ConfigError("name two runs or more, different ones; `lockgate ls` lists them")
    runs = [compared_run(*pair) for pair in zip(found, run_states(found), strict=True)]
    if options.by:
        runs = sorted_runs(runs, options.by)
    if options.json:
        shown = {
            "by": options.by,
            "differences": differing_settings(runs),
            "runs": [run.as_dict() for run in runs],
        }
        print(json.dumps(shown, indent=2))
        return 0
    rows = [*_states(runs), *_digests(runs), *_settings(differing_settings(runs)), *_metrics(runs)]
    header = ["", *(run.state.run for run in runs)]
    if len(runs) > SIDE_BY_SIDE:
        header, *rows = (list(column) for column in zip(header, *rows, strict=True))
    print_table(rows, header)
    return 0


Rows = list[list[str]]


def _states(runs: Sequence[ComparedRun]) -> Rows:
    rows = [
        ["state", *(run.state.state for run in runs)],
        ["step", *(f"{run.curve.step}/{run.state.steps or '?'}" for run in runs)],
    ]
    faults = [_fault(run) for run in runs]
    return [*rows, ["BROKEN", *faults]] if any(faults) else rows


def _fault(run: ComparedRun) -> str:
    """The sentence of a run that cannot be compared in full; empty for one in order."""
    return run.curve.problem or "" if run.spec else run.state.detail


def _digests(runs: Sequence[ComparedRun]) -> Rows:
    """Code and data always, the project and the packages where they differ."""
    rows = []
    for name in ("source", "dataset", "project", "environment"):
        digests = [run.digests.get(name) for run in runs]
        known = {run.digests.get(name) for run in runs if run.digests}
        if name in ("source", "dataset") or len(known) > 1:
            rows.append([name, *(_short(digest) for digest in digests)])
    return rows


def _short(digest: str | None) -> str:
    name, at, value = (digest or "-").rpartition("@")
    return f"{name}{at}{value[:12]}"


def _settings(differences: dict[str, list[dict[str, Any]]]) -> Rows:
    return [
        [key, *(str(cell["value"]) if "value" in cell else "-" for cell in row)]
        for key, row in differences.items()
    ]


def _metrics(runs: Sequence[ComparedRun]) -> Rows:
    from hpc.jobs.run.comparison import metric_names

    rows = []
    for name in metric_names(runs):
        found = [run.curve.metrics.get(name) for run in runs]
        lower = next(one.lower_is_better for one in found if one)
        rows.append([f"{name} (last)", *(f"{one.last:.6g}" if one else "-" for one in found)])
        side = "lowest" if lower else "highest"
        rows.append([f"{name} ({side})", *(f"{one.best:.6g}" if one else "-" for one in found)])
    times = [run.curve.step_seconds for run in runs]
    rows.append(["step time, s", *("-" if one is None else f"{one:.4g}" for one in times)])
    return rows
