"""`lockgate logs RUN [-f]`: every rank and attempt; -f follows to the run's end."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from conf.names import printable

if TYPE_CHECKING:
    from hpc.jobs.run.logs import LogLine

DESCRIPTION = """\
Show a run's logs, each line with its attempt and rank. With -f, follow them until the run is over,
requeues included; then the exit code is 0 if the run finished and 1 if it did not.
"""


def main(argv: Sequence[str]) -> int:
    """Run `lockgate logs ARGV`."""
    parser = argparse.ArgumentParser(prog="lockgate logs", description=DESCRIPTION)
    parser.add_argument("words", nargs="+", metavar="RUN", help="a run's name, its end, or `last`")
    parser.add_argument("-f", "--follow", action="store_true", help="follow until the run is over")
    parser.add_argument("--rank", type=int, help="only this rank")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    options = parser.parse_intermixed_args(list(argv))
    from hpc.cli.site import run_word, runs_folder
    from hpc.jobs.queue import run_state
    from hpc.jobs.run import logs
    from hpc.jobs.run.folder import find_run
    from hpc.jobs.run.states import FINISHED

    word, overrides = run_word(options.words, "logs")
    run = find_run(runs_folder(overrides), word)
    if not options.follow:
        for line in logs.read_lines(run, options.rank):
            _print(line, options.json)
        return 0
    for line in logs.follow_lines(run, options.rank, lambda: run_state(run)):
        _print(line, options.json)
    last = run_state(run)
    if not options.json:
        print(f"{run.name} {last.state} {last.detail}".rstrip(), flush=True)
    return 0 if last.state == FINISHED else 1


def _print(line: LogLine, as_json: bool) -> None:
    """One JSON object, exactly; for people a progress bar's states are lines of their own, and
    what would command the terminal is shown as an escape."""
    if as_json:
        print(json.dumps(asdict(line)), flush=True)
        return
    for part in line.text.removesuffix("\r").split("\r"):
        print(f"{line.stream} | {printable(part)}", flush=True)
