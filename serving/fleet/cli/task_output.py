"""The frame of every task of `fab`: config, errors as sentences, output, exit codes.

Exit codes are those of `conf.errors`, with 1 also for drift that `fab status` found.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.exceptions import Exit

if TYPE_CHECKING:
    from rich.console import RenderableType

    from serving.fleet.cli.command import Controls
    from serving.fleet.rollout.rollout_run import Progress


def run_fleet(overrides: list[str] | None, act: Callable[[Controls], Any]) -> Any:
    from serving.fleet.cli.command import controls

    return run_composed("rollout", overrides, lambda config: act(controls(config)))


def run_composed(primary: str, overrides: list[str] | None, act: Callable[[Any], Any]) -> Any:
    """Compose a config and do `act`; errors end as those of `guarded`."""
    from conf import compose

    return guarded(lambda: act(compose(primary, overrides or [])))


def guarded(act: Callable[[], Any]) -> Any:
    """Do `act` in the project; its error becomes a sentence and the error's exit code."""
    from conf import LockgateError, enter_project
    from conf.errors import FAILED, INTERRUPTED
    from serving.fleet.errors import denied

    try:
        refuse_core_hosts(sys.argv[1:])
        enter_project()
        return act()
    except LockgateError as error:
        raise exit_with(str(error), error.exit_code) from error
    except OSError as error:
        if error.filename is None:
            raise
        found = denied("cannot use", Path(os.fsdecode(error.filename)), error)
        code = found.exit_code if isinstance(error, PermissionError) else FAILED
        raise exit_with(str(found), code) from error
    except KeyboardInterrupt as error:
        # A rollout undoes itself and returns; here it had not begun, or its undo was cut short.
        sentence = "interrupted. A rollout that had begun is open in the journal: fab status."
        raise exit_with(sentence, INTERRUPTED) from error


def refuse_core_hosts(words: list[str]) -> None:
    """Raises FleetConfigError for fab's own -H: it would do a task once for each of the hosts."""
    from serving.fleet.cli.tasks import __all__ as tasks
    from serving.fleet.errors import FleetConfigError

    names = {name.replace("_", "-") for name in tasks}
    before = list(itertools.takewhile(lambda word: word not in names, words))
    if any(word.startswith("-H") or word.split("=")[0] == "--hosts" for word in before):
        raise FleetConfigError(
            "fab -H runs a task once for each host, and a rollout is one for all. Put the names "
            "behind the task: fab deploy --hosts e1,w0, or --skip e1"
        )


def exit_with(sentence: str, code: int) -> Exit:
    from conf.names import printable

    try:
        print(f"fab: {printable(sentence)}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        _detach(sys.stderr.fileno())  # as in `fab status 2>&1 | head`
    return Exit(code=code)


def progress_lines(as_json: bool) -> Progress:
    from conf.names import printable

    began, stream = time.monotonic(), sys.stderr if as_json else sys.stdout

    def progress(host: str, step: str, detail: str) -> None:
        seconds = time.monotonic() - began
        line = printable(f"{seconds:6.1f} s  {host:<10} {step:<8} {detail}".rstrip())
        try:
            print(line, file=stream, flush=True)
        except BrokenPipeError:
            _detach(stream.fileno())  # nobody reads on; a rollout goes on all the same

    return progress


def print_result(
    content: Any,
    as_json: bool,
    lines: list[str],
    table: Callable[[], RenderableType] | None = None,
) -> None:
    """Print `content` as JSON, or `table` on a terminal, or `lines`."""
    from conf.names import printable

    try:
        if as_json:
            print(json.dumps(content, indent=2), flush=True)
        elif table is not None and sys.stdout.isatty():
            from rich.console import Console

            Console().print(table())
        else:
            print("\n".join(map(printable, lines)), flush=True)
    except BrokenPipeError:
        _detach(sys.stdout.fileno())  # as in `fab status | head`


def _detach(descriptor: int) -> None:
    """Let the descriptor of a closed pipe lead nowhere, so that a later flush does not raise."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def version_number(text: str | None, command: str) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        from conf.names import shown
        from serving.fleet.errors import FleetConfigError

        raise FleetConfigError(
            f"--version={shown(text)} is not a version's number, digits only. "
            f"Type: fab {command} --version 3"
        )
    return int(text)
