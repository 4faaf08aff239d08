"""`lockgate cancel RUN`: end a run, and come back when it is gone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run `lockgate cancel ARGV`."""
    parser = argparse.ArgumentParser(
        prog="lockgate cancel",
        description="End a run. Its ranks are asked to save first; comes back when it is gone.",
    )
    parser.add_argument("words", nargs="+", metavar="RUN", help="a run's name, its end, or `last`")
    parser.add_argument(
        "--timeout", type=float, default=120.0, help="seconds to wait (default 120)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_intermixed_args(list(argv))
    from hpc.cli.site import run_word, runs_folder
    from hpc.jobs.cancel import cancel
    from hpc.jobs.run.folder import find_run

    word, overrides = run_word(options.words, "cancel")
    run = find_run(runs_folder(overrides), word)
    ended, state = cancel(run, options.timeout)
    if options.json:
        print(json.dumps({"ended": ended, **state.as_dict()}, indent=2))
    elif ended:
        print(f"{run.name} is gone: {state.state}")
    else:
        print(f"{run.name} was over already: {state.state}")
    return 0
