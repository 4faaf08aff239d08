"""`lockgate export run=RUN`: make a finished run's candidate again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run `lockgate export ARGV`."""
    parser = argparse.ArgumentParser(
        prog="lockgate export",
        description="Make a finished run's candidate again, from its last checkpoint and with the "
        "code that it was trained with. `lockgate release run=RUN` takes it from there.",
    )
    parser.add_argument("words", nargs="+", metavar="run=RUN", help="a run's name, or `last`")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_intermixed_args(list(argv))
    from hpc.cli.site import run_word, runs_folder
    from hpc.jobs.candidate import export_again
    from hpc.jobs.run.folder import find_run

    word, overrides = run_word(options.words, "export")
    run = find_run(runs_folder(overrides), word)
    candidate = export_again(run)
    print(json.dumps({"run": run.name, "candidate": str(candidate)}) if options.json else candidate)
    return 0
