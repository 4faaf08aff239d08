"""`lockgate logs RUN [-f]`: every rank and attempt; -f follows to the run's end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from hpc.cli.follow import follow_view, shown_lines

if TYPE_CHECKING:
    from rich.console import Console

    from hpc.jobs.run.folder import Run
    from hpc.jobs.run.logs import LogLine

DESCRIPTION = """\
Show a run's logs, each line with its attempt and rank. With -f, follow them until the run is over,
requeues included; then the exit code is 0 if the run finished and 1 if it did not. On a terminal
the lines run above a bar with the steps and the time left.
"""
ANSWER_AGE_S = 10.0
"""Slurm's answers may be this old: all followers of a user share them. What a run's own files have,
such as its end, is seen at once."""


def main(argv: Sequence[str]) -> int:
    """Run `lockgate logs ARGV`."""
    parser = argparse.ArgumentParser(prog="lockgate logs", description=DESCRIPTION)
    parser.add_argument("words", nargs="+", metavar="RUN", help="a run's name, its end, or `last`")
    parser.add_argument("-f", "--follow", action="store_true", help="follow until the run is over")
    parser.add_argument("--rank", type=int, help="only this rank")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    options = parser.parse_intermixed_args(list(argv))
    from hpc.cli.site import run_word, runs_folder
    from hpc.jobs.run import logs
    from hpc.jobs.run.folder import find_run

    word, overrides = run_word(options.words, "logs")
    run = find_run(runs_folder(overrides), word)
    if options.follow:
        return _follow(run, options)
    for line in logs.read_lines(run, options.rank):
        _print(line, options.json)
    return 0


def _follow(run: Run, options: argparse.Namespace) -> int:
    from hpc.jobs.queue import run_state
    from hpc.jobs.run.logs import follow_lines
    from hpc.jobs.run.states import FINISHED
    from hpc.jobs.slurm.recent import recent_answers

    with recent_answers(ANSWER_AGE_S):
        if options.json:
            for line in follow_lines(run, options.rank, lambda: run_state(run)):
                _print(line, as_json=True)
        else:
            with follow_view(run, _terminal()) as view:
                for line in follow_lines(run, options.rank, lambda: run_state(run), view.state):
                    view.line(line)
        last = run_state(run)
    if not options.json:
        print(f"{run.name} {last.state} {last.detail}".rstrip(), flush=True)
    return 0 if last.state == FINISHED else 1


def _terminal() -> Console | None:
    """The terminal that standard output is; None for a pipe or a file."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    console = Console()
    return console if console.is_terminal and not console.is_dumb_terminal else None


def _print(line: LogLine, as_json: bool) -> None:
    """One JSON object, exactly; or its lines for people."""
    if as_json:
        print(json.dumps(asdict(line)), flush=True)
        return
    for text in shown_lines(line):
        print(text, flush=True)
