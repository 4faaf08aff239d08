"""`scripts/test`: the stages run, side by side where they may, counted and timed at the end."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from conf.errors import ConfigError
from scripts.junit import TestOutcome, count_outcomes, read_outcomes, skip_reasons, slowest_tests
from scripts.stages import BIN, REPO, REPORTS, STAGES, Stage, choose_stages

PARALLEL = min(3, (os.cpu_count() or 1) + 1)
"""Stages at a time: one more than two cores, since tests of daemons wait more than they work. A
test may use two cores itself, and several gigabytes."""
SLOWEST = 10
TESTS_FAILED, NO_TESTS = 1, 5  # exit codes of pytest


@dataclass(frozen=True)
class StageResult:
    """One stage that ran to its end."""

    stage: Stage
    exit_code: int
    seconds: float
    tests: tuple[TestOutcome, ...] = ()
    """Of the last try of each."""
    retried: tuple[str, ...] = ()
    """Names of the tests that failed in the first try and were run once more."""

    @property
    def counts(self) -> Counter[str]:
        """Passed, failed and skipped; a stage without a report, or of a linter, counts as one."""
        counts = count_outcomes(list(self.tests))
        if self.failed and not counts["failed"]:
            counts["failed"] = 1
        elif not self.failed and not self.stage.is_pytest:
            counts["passed"] = 1
        return counts

    @property
    def failed(self) -> bool:
        return self.exit_code != 0


def run_stage(stage: Stage, captured: bool) -> StageResult:
    """Run one stage to its end; its output is passed through, or printed whole when `captured`."""
    started = time.monotonic()
    for report in (stage.report, stage.second_report):
        report.unlink(missing_ok=True)
    code, output = _run(stage.command(), captured)
    tests = {test.name: test for test in read_outcomes(stage.report)}
    failed = tuple(name for name, test in tests.items() if test.outcome == "failed")
    retried: tuple[str, ...] = ()
    if stage.again and code == TESTS_FAILED and failed:
        print(f"== {stage.name}: {len(failed)} failed; once more", flush=True)
        code, more = _run(stage.command(second=True), captured)
        output += more
        for test in read_outcomes(stage.second_report):
            tests[test.name] = test
        retried = failed
    if code == NO_TESTS and stage.paths:
        code = 0  # a folder that a person chose has tests of other stages only
    elif code == 0 and stage.is_pytest and not tests:
        code = NO_TESTS  # no report: pytest did not come to its end
    seconds = time.monotonic() - started
    # One call: the output of a stage that runs beside this one must not come between.
    whole = f"== {stage.name}\n{output}" if captured else ""
    print(f"{whole}== {stage.name}: exit {code}, {seconds:.0f} s", flush=True)
    return StageResult(stage, code, seconds, tuple(tests.values()), retried)


def run_stages(stages: Sequence[Stage], parallel: int = PARALLEL) -> Iterator[StageResult]:
    """Run the stages: `alone` ones one by one in their order, the others `parallel` at a time."""
    for alone, group in groupby(stages, key=lambda stage: stage.alone):
        members = list(group)
        if alone or parallel == 1 or len(members) == 1:
            for stage in members:
                print(f"== {stage.name}: {' '.join(stage.command())}", flush=True)
                yield run_stage(stage, captured=False)
            continue
        print(f"== {parallel} at a time: {', '.join(stage.name for stage in members)}", flush=True)
        with ThreadPoolExecutor(parallel) as pool:
            running: list[Future[StageResult]] = [
                pool.submit(run_stage, stage, captured=True) for stage in members
            ]
            for future in as_completed(running):
                yield future.result()


def print_summary(results: Sequence[StageResult], console: Console, seconds: float) -> None:
    """Print counts and time of each stage, the slowest tests, why tests were skipped, the total."""
    table = Table(box=box.SIMPLE, title="Stages", title_justify="left")
    for column in ("stage", "passed", "failed", "skipped", "seconds"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    total: Counter[str] = Counter()
    for result in results:
        counts = result.counts
        total += counts
        numbers = (str(counts[key]) for key in ("passed", "failed", "skipped"))
        table.add_row(result.stage.name, *numbers, f"{result.seconds:.0f}")
    console.print(table)
    every = [
        replace(test, name=f"{result.stage.name}: {test.name}")
        for result in results
        for test in result.tests
    ]
    for test in slowest_tests(iter(every), SLOWEST):
        console.print(f"{test.seconds:7.1f} s  {test.name}", soft_wrap=True, markup=False)
    for reason, count in sorted(skip_reasons(iter(every)).items()):
        console.print(f"skipped {count}: {reason}", soft_wrap=True, markup=False)
    for result in results:
        for name in result.retried:
            console.print(f"second try: {result.stage.name}: {name}", soft_wrap=True, markup=False)
    failed = [result.stage.name for result in results if result.failed]
    if failed:
        console.print(f"failed stages: {', '.join(failed)}")
    console.print(
        f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped "
        f"in {seconds / 60:.1f} min"
    )


def main(argv: list[str], stages: Sequence[Stage] = STAGES) -> int:
    """Run the chosen stages; 0 when all passed, 1 when not, 2 for a mistake in `argv`."""
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    parser.add_argument(
        "--fast", action="store_true", help="only what needs no daemon, no compiler"
    )
    parser.add_argument("--full", action="store_true", help="also the tests marked `full`")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME[,NAME]",
        help=f"stages ({', '.join(stage.name for stage in stages)}), or folders and files "
        "(serving/artifact, tests/hpc/data)",
    )  # fmt: skip
    given = parser.parse_args(argv)
    only = [word for words in given.only for word in words.split(",") if word]
    try:
        chosen = choose_stages(stages, only, given.fast, given.full)
    except ConfigError as error:
        parser.error(str(error))
    if not chosen:
        parser.error("no stage fits; see --help for their names")
    REPORTS.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    results = list(run_stages(chosen))
    # A pipe has no width; nothing is cut there.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    print_summary(results, console, time.monotonic() - started)
    ran = sum(result.counts.total() for result in results)
    return 1 if any(result.failed for result in results) or not ran else 0


def _run(command: list[str], captured: bool) -> tuple[int, str]:
    """Exit code, and the output where it is `captured`."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    if not captured:
        return subprocess.run(command, cwd=REPO, env=environment).returncode, ""
    done = subprocess.run(
        command, cwd=REPO, env=environment, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
