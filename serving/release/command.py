"""`lockgate release run=RUN [key=value ...] [--dry-run] [--json] [--cfg job]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from conf import ConfigError, compose
from conf.errors import (
    DONE,
    FAILED,
    INCOMPLETE,
    INTERRUPTED,
    MISTAKE,
    REFUSED,
    LockgateError,
)
from conf.names import RUN_LETTERS, check_name, nearest, printable
from conf.tree import options as config_options
from serving.artifact.candidate import read_candidate
from serving.artifact.verify import Refused


def main(argv: Sequence[str]) -> int:
    """Run the command line after `lockgate release`; returns its exit status (`conf.errors`).

    0 released, unchanged, or passed a dry run; 1 failed; 2 a mistake on the command line or in a
    config file; 3 published but not registered; 4 a gate or a check refused it; 5 MLflow does not
    answer.
    """
    options = _parser().parse_intermixed_args(argv)
    try:
        cfg = compose("release", _with_gates(options.overrides))
        if options.cfg:
            print(OmegaConf.to_yaml(cfg), end="")
            return DONE
        _check_run(cfg)
        # Heavy (numpy, gRPC), so not before the command line has been found right.
        from serving.release import pipeline, report, settings

        wanted = settings.release_settings(cfg)
        result = pipeline.release_candidate(wanted, _print_progress, options.dry_run)
    except LockgateError as error:
        plain = error.exit_code in (MISTAKE, INCOMPLETE)
        return _print_error(f"{'' if plain else 'nothing was released: '}{error}", error.exit_code)
    except Refused as error:
        return _print_error(f"nothing was released: {error}", REFUSED)
    except KeyboardInterrupt:
        print("lockgate: interrupted; run it again to continue", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        return _print_error(f"nothing was released: {error}", FAILED)
    if options.json:
        print(result.as_json())
    if not options.json or result.exit_code:
        report.print_report(result, _console(options.json))
    return result.exit_code


def _with_gates(overrides: Sequence[str]) -> list[str]:
    """`overrides` with gates=TASK in front, the task of the run's candidate.json.

    Only a default: whoever writes gates=... has chosen. Raises ConfigError when no run is named or
    conf/gates has no file of the task's name, NoCandidate when the run has no candidate.
    """
    if any(text.startswith("gates=") for text in overrides):
        return list(overrides)
    plain = [text for text in overrides if not text.lstrip("+~").startswith("gates")]
    cfg = compose("release", plain)
    if OmegaConf.is_missing(cfg, "run"):
        raise ConfigError(
            "run: say which run to release, as in lockgate release run=RUN (see lockgate ls)"
        )
    _check_run(cfg)
    task = read_candidate(Path(cfg.site.paths.runs) / str(cfg.run) / "candidate").task
    known = config_options("gates")
    if task not in known:
        raise ConfigError(
            f"run {cfg.run} is of task {task}, and there is no conf/gates/{task}.yaml. "
            f"{nearest(task, known)}. Write one, or name another: gates=NAME"
        )
    return [f"gates={task}", *overrides]


def _check_run(cfg: DictConfig) -> None:
    """Raise ConfigError for a run whose name leads elsewhere than into the folder of runs."""
    if not OmegaConf.is_missing(cfg, "run"):
        check_name("run", str(cfg.run), "lockgate release run={}", RUN_LETTERS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lockgate release",
        description="Take a run's candidate through its gates; number, sign and register it.",
        epilog="Thresholds are in conf/gates/, as in gates.bits.vs_xz.required=true. Exit code 4: "
        "a gate failed and nothing was released.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="run=RUN, and any key of conf/release.yaml",
    )
    parser.add_argument("--dry-run", action="store_true", help="run the gates, release nothing")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument("--cfg", choices=["job"], help="print the composed config and stop")
    return parser


def _console(to_stderr: bool) -> Console:
    """A table needs room: a pipe, which has no width, gets 140 columns."""
    console = Console(stderr=to_stderr)
    return console if console.is_terminal else Console(stderr=to_stderr, width=140)


def _print_progress(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _print_error(sentence: str, code: int) -> int:
    print(f"lockgate: {printable(sentence)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
