"""`lockgate VERB ...`: find the verb, run it, and turn a mistake into a sentence and a code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

# Verb -> (summary, module:function). A module is imported when its verb is called, so that no verb
# pays for another one's dependencies.
VERBS = {
    "data": ("prepare and publish a dataset", "hpc.data.command:main"),
    "train": ("submit a training run, or a sweep of runs", "hpc.cli.train:main"),
    "ls": ("list runs and where they stand", "hpc.cli.ls:main"),
    "logs": ("show a run's logs; -f follows them to its end", "hpc.cli.logs:main"),
    "cancel": ("end a run and wait until it is gone", "hpc.cli.cancel:main"),
    "export": ("make a finished run's candidate again", "hpc.cli.export:main"),
    "release": ("validate, sign and register a run's candidate", "hpc.cli.release:main"),
    "doctor": ("look at what a run needs, and say what is missing", "hpc.cli.doctor:main"),
}

HELP = """\
usage: lockgate VERB [options] [key=value ...]

From a Slurm cluster to a Triton fleet, one gate at a time.

{verbs}

Deploying is `fab -l`. Help on one verb: lockgate VERB --help

exit codes:
  0    done
  1    it failed, and says why
  2    a mistake on the command line or in a config file
  3    the site is not there: Slurm does not answer
  130  interrupted with Ctrl-C
"""

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help(), end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else MISTAKE
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"lockgate {version('lockgate')}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, n=1, cutoff=0.4)
        hint = f"Did you mean: lockgate {near[0]}" if near else f"There is: {', '.join(VERBS)}"
        print(f"lockgate: no verb {verb!r}. {hint}", file=sys.stderr)
        return MISTAKE
    return _run(verb, rest)


def _run(verb: str, arguments: list[str]) -> int:
    from conf import ConfigError
    from hpc.jobs.errors import JobError

    module, function = VERBS[verb][1].split(":")
    try:
        return int(getattr(import_module(module), function)(arguments) or 0)
    except ConfigError as error:
        return _say(error, MISTAKE)
    except JobError as error:
        return _say(error, error.exit_code)
    except BrokenPipeError:
        # The reader of our output has seen enough, as in `lockgate logs RUN | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        return _say(error, FAILED)
    except KeyboardInterrupt:
        print("", file=sys.stderr)
        return _say("interrupted", INTERRUPTED)


def _say(error: object, code: int) -> int:
    print(f"lockgate: {error}", file=sys.stderr)
    return code


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {summary}" for verb, (summary, _) in VERBS.items()]
    return HELP.format(verbs="\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
