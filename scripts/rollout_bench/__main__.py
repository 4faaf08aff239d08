"""Goals of the rollouts, measured on this machine beside other tools.

    scripts/bench rollout [--part transfer] [--hosts 1,2,4,8] [--mib 300] [--json]
    scripts/bench rollout --part load --model NAME [--rate 150] [--requests 100000]
                          [--cores 0.4]

Hosts of the part transfer are network namespaces with a real sshd each; the part load asks the
running site. Nothing leaves this machine. It ends by itself and leaves nothing behind but
build/bench-venv. Exit code 1 when a measured goal does not hold.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conf import compose
from scripts.goals import figures_table, goals_table, print_goals
from scripts.rollout_bench.goals import all_goals
from scripts.rollout_bench.load import LoadFigures, load_rows, load_values, measure_load
from scripts.rollout_bench.machines import BenchError
from scripts.rollout_bench.tools import TOOLS
from scripts.rollout_bench.transfer import (
    TransferFigures,
    measure_transfer,
    transfer_rows,
    transfer_values,
)
from serving.artifact.store import models

PARTS = ("transfer", "load")
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
    parser.add_argument("--model", default="", help="of the part load; the store's only one")
    parser.add_argument("--rate", type=float, default=150.0, help="a second, by each protocol")
    parser.add_argument("--requests", type=int, default=100_000, help="in all, at least")
    parser.add_argument(
        "--cores", type=float, default=0.0,
        help="of each serving host in the part load; 0 lets them share all",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the goals as JSON, no table")
    given = parser.parse_args(argv)
    if not 1 <= given.mib <= MAX_MIB:
        parser.error(f"--mib {given.mib}: choose 1 to {MAX_MIB}")
    if not 0 <= given.cores <= (os.cpu_count() or 1):
        parser.error(f"--cores {given.cores}: choose 0 to {os.cpu_count()}")
    # Ended from outside it leaves nothing either: the hosts are taken down on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    progress = Console(stderr=True, highlight=False)
    parts = given.part or PARTS
    values: dict[str, float] = {}
    bounds: dict[str, float] = {}
    tables: list[Table] = []
    faults = []
    if "transfer" in parts:
        try:
            moved = measure_transfer(given.hosts, given.mib, list(TOOLS), progress.print)
            values, bounds = transfer_values(moved)
            tables.append(_transfer_table(moved))
        except BenchError as error:
            faults.append(f"transfer: {error}")
    if "load" in parts:
        try:
            model = given.model or _only_model()
            asked = measure_load(model, given.rate, given.requests, given.cores, progress.print)
            values |= load_values(asked)
            tables.append(_load_table(asked, given.cores))
        except BenchError as error:
            faults.append(f"load: {error}")
    listed = all_goals(values, bounds, given.requests)
    return print_goals(listed, [*tables, goals_table(listed)], faults, given.json)


def _only_model() -> str:
    try:
        names = models(Path(compose("site").site.paths.store))
    except OSError as error:
        raise BenchError(f"the store cannot be read: {error.strerror}") from error
    if len(names) != 1:
        raise BenchError(f"name one with --model; the store has {', '.join(names) or 'none'}")
    return names[0]


def _counts(text: str) -> tuple[int, ...]:
    counts = sorted({int(word) for word in text.split(",")})
    if not counts or not all(1 <= count <= MAX_HOSTS for count in counts):
        raise argparse.ArgumentTypeError(f"choose numbers from 1 to {MAX_HOSTS}")
    return tuple(counts)


def _transfer_table(found: TransferFigures) -> Table:
    title = f"A package of {found.package_bytes / (1 << 20):.0f} MiB; sizes in packages"
    return figures_table(
        title, ("hosts", "tool", "sent", "s", "sent again", "s again"), transfer_rows(found)
    )


def _load_table(found: LoadFigures, cores: float) -> Table:
    share = f"{cores:g} cores for each host" if cores else "hosts share all cores"
    title = f"Under load: {len(found.seen)} requests by HTTP and gRPC; {share}"
    columns = ("phase", "s", "requests", "failed", "p99 ms", "longest gap ms")
    return figures_table(title, columns, load_rows(found))


if __name__ == "__main__":
    sys.exit(main())
