"""`lockgate release run=RUN [key=value ...] [--dry-run] [--json] [--cfg job]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from conf import ConfigError, compose
from serving.artifact.candidate import CandidateError, read_candidate
from serving.release.registry import PublishedNotRegistered

#: 1: could not be done; 2: wrong usage; 3: a gate failed.
FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str]) -> int:
    """Run the command line after `lockgate release`; returns its exit status.

    0 released, unchanged, or passed a dry run; 3 a gate failed.
    """
    options = _parser().parse_intermixed_args(argv)
    try:
        cfg = compose("release", _with_gates(options.overrides))
        if options.cfg:
            from omegaconf import OmegaConf

            print(OmegaConf.to_yaml(cfg), end="")
            return 0
        # Heavy (numpy, scikit-learn, gRPC), so not before the command line is known to be right.
        from serving.release import pipeline, report, settings

        wanted = settings.load(cfg)
        result = pipeline.release(wanted, _say, options.dry_run)
    except ConfigError as error:
        return _refuse(str(error), USAGE)
    except KeyboardInterrupt:
        return _refuse("interrupted; run it again to continue", INTERRUPTED)
    except PublishedNotRegistered as error:
        return _refuse(str(error), FAILED)
    except (ValueError, RuntimeError, OSError) as error:
        return _refuse(f"nothing was released: {error}", FAILED)
    if options.json:
        print(result.as_json())
    if not options.json or result.exit_code:
        report.show(result, _console(options.json))
    return result.exit_code


def _with_gates(overrides: Sequence[str]) -> list[str]:
    """`overrides` with gates=TASK in front, the task as the run's candidate.json says it.

    Only a default: whoever writes gates=... has chosen, and the release refuses a wrong choice.
    """
    if any(text.startswith("gates=") for text in overrides):
        return list(overrides)
    plain = [text for text in overrides if not text.lstrip("+~").startswith("gates")]
    cfg = compose("release", plain)
    run = next((text.partition("=")[2] for text in plain if text.startswith("run=")), "")
    try:
        task = read_candidate(Path(cfg.site.paths.runs) / run / "candidate").task
    except CandidateError:
        return list(overrides)  # said properly, and in full, when the candidate is read
    return [f"gates={task}", *overrides]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lockgate release",
        description="Take a run's candidate through its gates; number, sign and register it.",
        epilog="Thresholds are in conf/gates/, as in gates.xz.required=true. Exit code 3: a gate "
        "failed and nothing was released.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="run=RUN, and any key of conf/release.yaml",
    )
    parser.add_argument("--dry-run", action="store_true", help="judge the gates, release nothing")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument("--cfg", choices=["job"], help="print the composed config and stop")
    return parser


def _console(to_stderr: bool) -> Console:
    """A table needs room: a pipe, which has no width, gets 140 columns."""
    console = Console(stderr=to_stderr)
    return console if console.is_terminal else Console(stderr=to_stderr, width=140)


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _refuse(sentence: str, code: int) -> int:
    print(f"lockgate: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
