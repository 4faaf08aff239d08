"""Goals of the rollouts, measured on this machine beside other tools.

    scripts/bench rollout [--part transfer] [--hosts 1,2,4,8] [--mib 300] [--json]

Hosts are network namespaces with a real sshd each; nothing leaves this machine. It ends by itself
and leaves nothing behind but build/bench-venv. Exit code 1 when a measured goal does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from scripts.rollout_bench.goals import Goal, all_goals, goal_rows
from scripts.rollout_bench.machines import BenchError
from scripts.rollout_bench.tools import TOOLS
from scripts.rollout_bench.transfer import (
    TransferFigures,
    measure_transfer,
    transfer_rows,
    transfer_values,
)

PARTS = ("transfer",)
MAX_HOSTS, MAX_MIB = 32, 4096


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print; 0 if every measured goal holds, 1 if one does not, 2 for a wrong word."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bench", choices=["rollout"])
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--hosts", type=_counts, default=(1, 2, 4, 8), help="numbers, with commas")
    parser.add_argument("--mib", type=int, default=300, help="size of the package")
    parser.add_argument("--json", action="store_true", help="print the goals as JSON, no table")
    given = parser.parse_args(argv)
    if not 1 <= given.mib <= MAX_MIB:
        parser.error(f"--mib {given.mib}: choose 1 to {MAX_MIB}")
    console = Console(stderr=True, highlight=False)
    try:
        found = measure_transfer(given.hosts, given.mib, list(TOOLS), console.print)
    except BenchError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 2
    values, bounds = transfer_values(found)
    listed = all_goals(values, bounds)
    if given.json:
        print(json.dumps([goal.as_json() for goal in listed], indent=2))
    else:
        _print_tables(found, listed)
    return 0 if all(goal.holds for goal in listed if goal.value is not None) else 1


def _counts(text: str) -> tuple[int, ...]:
    counts = sorted({int(word) for word in text.split(",")})
    if not counts or not all(1 <= count <= MAX_HOSTS for count in counts):
        raise argparse.ArgumentTypeError(f"choose numbers from 1 to {MAX_HOSTS}")
    return tuple(counts)


def _print_tables(found: TransferFigures, listed: Sequence[Goal]) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    title = f"A package of {found.package_bytes / (1 << 20):.0f} MiB; sizes in packages"
    console.print(_table(title, ("hosts", "tool", "sent", "s", "sent again", "s again"),
                         transfer_rows(found)))  # fmt: skip
    console.print(_table("Goals", ("goal", "value", "holds"), goal_rows(listed)))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    sys.exit(main())
