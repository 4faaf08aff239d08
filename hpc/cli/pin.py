"""`lockgate pin RUN[@STEP] [--off]`: keep a checkpoint, whatever the run's retention is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

DESCRIPTION = """\
Keep a checkpoint of a run, the newest or the one of a step, also while the run goes on: neither
the run's folder nor its checkpoint store loses it. --off takes the pin off again; the checkpoint
then goes when the run's keep_checkpoints, keep_every and keep_best have it go.
"""


def main(argv: Sequence[str]) -> int:
    """Run `lockgate pin ARGV`."""
    parser = argparse.ArgumentParser(prog="lockgate pin", description=DESCRIPTION)
    parser.add_argument(
        "words", nargs="+", metavar="RUN[@STEP]", help="a run's name, its end, or `last`"
    )
    parser.add_argument("--off", action="store_true", help="take the pin off")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_intermixed_args(list(argv))
    from conf import ConfigError
    from hpc.cli.site import run_word, runs_folder
    from hpc.jobs.run.folder import find_run
    from hpc.jobs.run.init_from import STEP
    from hpc.jobs.run.pins import pin_checkpoint, pinned_steps, unpin_checkpoint

    names = [word.rpartition("@") for word in options.words if "=" not in word]
    steps = [step for _, at, step in names if at]
    if any(not STEP.fullmatch(step) for step in steps):
        raise ConfigError(f"a step is a number, as in lockgate pin {names[0][0] or 'RUN'}@100")
    plain = [word if "=" in word else word.split("@")[0] for word in options.words]
    word, overrides = run_word(plain, "pin")
    run = find_run(runs_folder(overrides), word)
    step = int(steps[0]) if steps else None
    done = unpin_checkpoint(run, step) if options.off else pin_checkpoint(run, step)
    pinned = sorted(pinned_steps(run.checkpoints))
    if options.json:
        print(json.dumps({"run": run.name, "step": done, "pinned": pinned}, indent=2))
        return 0
    what = "no longer pinned" if options.off else "pinned"
    print(f"{run.name}@{done} is {what}. Pinned: {', '.join(map(str, pinned)) or 'none'}")
    return 0
