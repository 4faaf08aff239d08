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
    "new": ("make a project: a folder for a model of one's own", "hpc.cli.new:main"),
    "data": ("prepare and publish a dataset", "hpc.data.command:main"),
    "train": ("submit a training run, or a sweep of runs", "hpc.cli.train:main"),
    "resume": ("go on from a run that ended", "hpc.cli.resume:main"),
    "ls": ("list runs and where they stand", "hpc.cli.ls:main"),
    "show": ("show one run: settings, times, metrics, how to repeat it", "hpc.cli.show:main"),
    "compare": ("show in what runs differ, and their metrics", "hpc.cli.compare:main"),
    "logs": ("show a run's logs; -f follows them to its end", "hpc.cli.logs:main"),
    "report": ("write runs as one HTML page", "hpc.cli.report:main"),
    "why": ("show what a run waits for, or why it ended", "hpc.cli.why:main"),
    "cancel": ("end a run and wait until it is gone", "hpc.cli.cancel:main"),
    "pin": ("keep a checkpoint of a run, whatever its retention", "hpc.cli.pin:main"),
    "export": ("make a finished run's candidate again", "hpc.cli.export:main"),
    "mlflow": ("bring runs that ended into MLflow as they are", "hpc.cli.mlflow:main"),
    "release": ("validate, sign and register a run's candidate", "hpc.cli.release:main"),
    "approve": ("sign a released version as a second person", "hpc.cli.approve:main"),
    "doctor": ("look at what a run needs, and list what is missing", "hpc.cli.doctor:main"),
    "completion": ("print a completion script, for bash or zsh", "hpc.cli.completion:main"),
}

HELP = """\
usage: lockgate VERB [options] [key=value ...]

From a Slurm cluster to a Triton fleet, one gate at a time.

{verbs}

Every verb works in the project of the working directory, the nearest folder upwards with a
lockgate.yaml, or in the one that --project DIR or $LOCKGATE_PROJECT names.
Deploying is `fab -l`. Help on one verb: lockgate VERB --help

exit codes, of lockgate and of fab:
  0    done, or nothing had to be done
  1    it failed, and says why; what was there before is as it was
  2    a mistake on the command line or in a config file; nothing was changed
  3    done or undone in part only; says what a person has to mend
  4    a gate, a signature or a check refused it; nothing was changed
  5    a part of the site does not answer, such as Slurm
  130  interrupted with Ctrl-C
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in ("-h", "--help", "help"):
        print(_help(), end="")
        return 0
    from conf.errors import FAILED, INTERRUPTED, LockgateError  # Hydra: not for help

    try:
        return _run(*_split_project(arguments))
    except LockgateError as error:
        return _failed(error, error.exit_code)
    except BrokenPipeError:
        # The reader of our output has seen enough, as in `lockgate logs RUN | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        return _failed(error, FAILED)
    except KeyboardInterrupt:
        print("", file=sys.stderr)
        return _failed("interrupted", INTERRUPTED)


def _run(project: str | None, arguments: list[str]) -> int:
    from conf.errors import MISTAKE
    from conf.project import enter_project

    if not arguments:
        print(_help(), end="", file=sys.stderr)
        return MISTAKE
    verb, *rest = arguments
    if verb == "--version":
        from importlib.metadata import version

        print(f"lockgate {version('lockgate')}")
        return 0
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, n=1, cutoff=0.4)
        hint = f"Did you mean: lockgate {near[0]}" if near else f"There is: {', '.join(VERBS)}"
        return _failed(f"no verb {verb!r}. {hint}", MISTAKE)
    if verb != "new":  # it makes a project, and needs none
        enter_project(project)
    module, function = VERBS[verb][1].split(":")
    return int(getattr(import_module(module), function)(rest) or 0)


def _split_project(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of `--project DIR`, wherever it stands, and the other words. Raises ConfigError."""
    from conf.errors import ConfigError

    project, others = None, []
    words = iter(arguments)
    for word in words:
        if word == "--project" or word.startswith("--project="):
            project = word.partition("=")[2] or next(words, "")
            if not project:
                raise ConfigError("--project names the folder of a project, as in --project DIR")
        else:
            others.append(word)
    return project, others


def _failed(error: object, code: int) -> int:
    from conf.names import printable

    print(f"lockgate: {printable(str(error))}", file=sys.stderr)
    return code


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {summary}" for verb, (summary, _) in VERBS.items()]
    return HELP.format(verbs="\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
