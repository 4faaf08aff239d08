"""`lockgate export run=RUN [task.serve.KEY=VALUE ...]`: make a finished run's candidate again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run `lockgate export ARGV`."""
    parser = argparse.ArgumentParser(
        prog="lockgate export",
        description="Make a finished run's candidate again, from its last checkpoint and with the "
        "code that it was trained with. task.serve.* may be corrected, as in "
        "task.serve.max_batch_size=64. `lockgate release run=RUN` takes it from there.",
    )
    parser.add_argument(
        "words", nargs="+", metavar="run=RUN", help="a run's name, or `last`; task.serve.KEY=VALUE"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_intermixed_args(list(argv))
    from hpc.cli.site import run_word, runs_folder
    from hpc.jobs.candidate import export_again, serving_limits
    from hpc.jobs.run.folder import find_run
    from hpc.jobs.spec.command_line import hydra_value

    word, overrides = run_word(options.words, "export")
    of_site = [text for text in overrides if text.partition("=")[0].partition(".")[0] == "site"]
    run = find_run(runs_folder(of_site), word)
    limits = serving_limits(run.spec, [text for text in overrides if text not in of_site])
    candidate = export_again(run, limits)
    if options.json:
        print(json.dumps({"run": run.name, "candidate": str(candidate), "limits": limits}))
    else:
        print(candidate)
        for key, value in limits.items():
            print(f"  {key}={hydra_value(value)}, of this candidate; the run's spec is as it was")
    return 0
