"""`lockgate mlflow [RUN ...]`: bring runs that ended into MLflow as they are."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

DESCRIPTION = """\
Bring runs that ended into MLflow: every metric of metrics.jsonl and none that is not there, and
their states. A job does so while it runs; this is for what MLflow missed while it was away, and for
a job that was killed or cancelled. Twice is the same as once. Runs that have not ended are left to
their jobs.
"""


def main(argv: Sequence[str]) -> int:
    """Run `lockgate mlflow ARGV`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="lockgate mlflow", description=DESCRIPTION)
    parser.add_argument("words", nargs="*", metavar="RUN", help="runs; without one the newest N")
    parser.add_argument("-n", type=int, default=20, metavar="N", help="the newest N (default 20)")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    options = parser.parse_intermixed_args(list(argv))
    from hpc.cli.site import run_words, runs_folder
    from hpc.jobs.queue import run_states
    from hpc.jobs.run.folder import all_runs, find_runs
    from hpc.train.mirrored import MLFLOW_STATUS, mirror_ended

    names, overrides = run_words(options.words, "mlflow")
    folder = runs_folder(overrides)
    runs = find_runs(folder, names) if names else all_runs(folder)[-max(options.n, 1) :]
    done: list[dict[str, str | None]] = []
    for run, state in zip(runs, run_states(runs), strict=True):
        if state.state in MLFLOW_STATUS:
            done.append({"run": run.name, "status": mirror_ended(run, state.state)})
        elif names:
            done.append({"run": run.name, "status": None})
    if options.json:
        print(json.dumps(done, indent=2))
        return 0
    for one in done:
        print(f"{one['run']}  {one['status'] or 'has not ended: its job feeds MLflow'}")
    if not done:
        print("no run has ended; lockgate ls lists them")
    return 0
