"""Goals of the training plane, measured on this machine beside other tools.

    scripts/bench train [--part step|stall|submit ...] [--rounds 60] [--task NAME] [--json]

The part step needs nothing; the part submit asks the running site (scripts/site up) and wants the
task's dataset prepared there. Times are compared within this run, in turns; the values are ratios
wherever a bound is another tool's. Exit code 1 when a measured goal does not hold.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from scripts.goals import figures_table, goals_table, print_goals
from scripts.train_bench.failure import BenchFailed
from scripts.train_bench.goals import PART_OF, all_goals
from scripts.train_bench.stall import measure_stall, stall_rows, stall_values
from scripts.train_bench.steps import measure_steps, step_rows, step_values
from scripts.train_bench.submit import measure_submit, submit_rows, submit_values

PARTS = tuple(dict.fromkeys(PART_OF.values()))
MAX_ROUNDS = 10_000
STEP_COLUMNS = ("loop", "wall ms", "CPU ms", "ours / it, wall", "ours / it, CPU")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print; 0 if every measured goal holds, 1 if one does not, 2 for a wrong word."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bench", choices=["train"])
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--rounds", type=int, default=60, help="steps of each loop, in turns")
    parser.add_argument("--task", default="", help="of the part submit")
    parser.add_argument("--json", action="store_true", help="print the goals as JSON, no table")
    given = parser.parse_args(argv)
    if not 2 <= given.rounds <= MAX_ROUNDS:
        parser.error(f"--rounds {given.rounds}: choose 2 to {MAX_ROUNDS}")
    # Ended from outside it leaves nothing either: its jobs are cancelled on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    progress = Console(stderr=True, highlight=False)
    parts = given.part or PARTS
    values: dict[str, float] = {}
    bounds: dict[str, float] = {}
    tables: list[Table] = []
    faults = []
    for part in parts:
        try:
            if part == "step":
                steps = measure_steps(given.rounds, progress.print)
                values |= step_values(steps)
                tables.append(figures_table("A step, in turns", STEP_COLUMNS, step_rows(steps)))
            elif part == "stall":
                stalls = measure_stall(progress.print)
                values |= stall_values(stalls)
                tables.append(
                    figures_table("A checkpoint", ("saving", "stall ms"), stall_rows(stalls))
                )
            elif part == "submit":
                sent = measure_submit(given.task, progress.print)
                found, others = submit_values(sent)
                values, bounds = values | found, bounds | others
                title, columns = "From Enter to the prompt", ("command", "s", "RPCs")
                tables.append(figures_table(title, columns, submit_rows(sent)))
            else:
                raise AssertionError(part)
        except (BenchFailed, subprocess.TimeoutExpired) as error:
            faults.append(f"{part}: {error}")
    listed = all_goals(values, bounds)
    return print_goals(listed, [goals_table(listed), *tables], faults, given.json)


if __name__ == "__main__":
    sys.exit(main())
