"""The tasks that `fab -l` lists: parse, call one function, print.

Exit codes are those of `conf.errors`, with 1 also for drift that `fab status` found.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Context, task
from invoke.exceptions import Exit

if TYPE_CHECKING:
    from rich.console import RenderableType

    from serving.fleet.cli.command import Controls, RolloutReport
    from serving.fleet.rollout.engine import Progress
    from serving.fleet.rollout.rollout_plan import RolloutPlan

__all__ = [
    "deploy",
    "heal",
    "lock",
    "plan",
    "revoke",
    "rollback",
    "status",
    "unlock",
]  # a fabfile.py imports *

_HELP = {
    "model": "the model's name; may be left out while the store has only one",
    "version": "the version's number; the newest in the store when left out",
    "set": "one key of conf/rollout.yaml, as in --set rollout.strategy=restart; may be repeated",
    "json": "print one JSON object on stdout; progress goes to stderr",
}
_UNLOCK = {
    "reason": "for the next person",
    "force": "also a rollout's own lock: it stops before its next step",
}
_REVOKE = {
    "model": _HELP["model"],
    "version": "the version's number",
    "reason": "for the next person",
}
_ROLLBACK = {**_HELP, "version": "the version to go back to; the one in production before"}


@task(iterable=["set"], help=_HELP)
def plan(
    _: Context,
    model: str | None = None,
    version: str | None = None,
    set: list[str] | None = None,
    json: bool = False,
) -> None:
    """The changes of a deployment on each host, with reasons; touches nothing."""
    from serving.fleet.cli.command import preview
    from serving.fleet.cli.tables import plan_table

    made = _run(set, lambda on: preview(on, model, _number(version, "plan")))
    _print(_plan_json(made), json, _plan_text(made), lambda: plan_table(made))


@task(iterable=["set"], help=_HELP)
def deploy(
    _: Context,
    model: str | None = None,
    version: str | None = None,
    set: list[str] | None = None,
    json: bool = False,
) -> None:
    """Walk a signed version through the fleet, canary first; undo all at the first failure."""
    from serving.fleet.cli.command import deploy as act

    _finish(
        _run(set, lambda on: act(on, model, _number(version, "deploy"), _progress(json))),
        json,
    )


@task(iterable=["set"], help=_ROLLBACK)
def rollback(
    _: Context,
    model: str | None = None,
    version: str | None = None,
    set: list[str] | None = None,
    json: bool = False,
) -> None:
    """Go back to the version that was in production before; needs no argument."""
    from serving.fleet.cli.command import rollback as act

    _finish(
        _run(set, lambda on: act(on, model, _number(version, "rollback"), _progress(json))),
        json,
    )


@task(iterable=["set"], help={key: _HELP[key] for key in ("model", "set", "json")})
def heal(
    _: Context, model: str | None = None, set: list[str] | None = None, json: bool = False
) -> None:
    """Bring every host back to the version in production."""
    from serving.fleet.cli.command import heal as act

    _finish(_run(set, lambda on: act(on, model, _progress(json))), json)


@task(iterable=["set"], help={key: _HELP[key] for key in ("model", "set", "json")})
def status(
    _: Context, model: str | None = None, set: list[str] | None = None, json: bool = False
) -> None:
    """The served versions of each host, its state at the edge, and any drift."""
    from conf.errors import FAILED
    from serving.fleet.cli.status import Status, fleet_status
    from serving.fleet.cli.tables import status_table

    found: Status = _run(set, lambda on: fleet_status(on, model))
    rows = [
        f"{row.host:<10} {row.region:<9} {row.model:<10} "
        f"{' '.join(str(v) for v in row.serving) or '-':<8} answers {row.answers or '-':<3} "
        f"{row.digest[:12] or '-':<12} {row.edge}" + "".join(f"\n{'':<10} ! {d}" for d in row.drift)
        for row in found.rows
    ]
    rows += [f"! {remark}" for remark in found.remarks]
    rows += list(found.notes)
    if not rows:
        rows = ["nothing was deployed yet: fab deploy"]
    content = {**asdict(found), "drifts": found.drifts}
    _print(content, json, rows, (lambda: status_table(found)) if found.rows else None)
    if found.drifts:
        raise Exit(code=FAILED)


@task(iterable=["set"], help={**_REVOKE, "set": _HELP["set"]})
def revoke(
    _: Context,
    model: str | None = None,
    version: str | None = None,
    reason: str = "",
    set: list[str] | None = None,
) -> None:
    """Have every host refuse one version for good, whoever signed it."""
    from serving.fleet.cli.revoke import revoke as act

    number = _number(version, "revoke")
    progress = _progress(False)
    _print({}, False, [_run(set, lambda on: act(on, model, number, reason, progress))])


@task(iterable=["set"], help={"reason": "for the next person", "set": _HELP["set"]})
def lock(_: Context, reason: str = "", set: list[str] | None = None) -> None:
    """Keep every rollout out of the fleet until fab unlock."""
    from serving.fleet.cli.lock import lock as act

    progress = _progress(False)

    def waiting(sentence: str) -> None:
        progress("fleet", "lock", sentence)

    _print({}, False, [_run(set, lambda on: act(on, reason, waiting))])


@task(iterable=["set"], help={**_UNLOCK, "set": _HELP["set"]})
def unlock(_: Context, reason: str = "", force: bool = False, set: list[str] | None = None) -> None:
    """Lift the lock of fab lock; with --force also that of a rollout, which then stops."""
    from serving.fleet.cli.lock import unlock as act

    _print({}, False, [_run(set, lambda on: act(on, reason, force))])


def _run(overrides: list[str] | None, act: Callable[[Controls], Any]) -> Any:
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
        enter_project()
        return act()
    except LockgateError as error:
        raise _exit(str(error), error.exit_code) from error
    except OSError as error:
        if error.filename is None:
            raise
        found = denied("cannot use", Path(os.fsdecode(error.filename)), error)
        code = found.exit_code if isinstance(error, PermissionError) else FAILED
        raise _exit(str(found), code) from error
    except KeyboardInterrupt as error:
        # A rollout undoes itself and returns; here it had not begun, or its undo was cut short.
        sentence = "interrupted. A rollout that had begun is open in the journal: fab status."
        raise _exit(sentence, INTERRUPTED) from error


def _exit(sentence: str, code: int) -> Exit:
    from conf.names import printable

    print(f"fab: {printable(sentence)}", file=sys.stderr)
    return Exit(code=code)


def _finish(report: RolloutReport, as_json: bool) -> None:
    _print({**asdict(report), "exit_code": report.exit_code}, as_json, _report_text(report))
    if report.exit_code:
        raise Exit(code=report.exit_code)


def _report_text(report: RolloutReport) -> list[str]:
    from conf.errors import INTERRUPTED

    what = f"{report.model}/{report.version}"
    before = f" (before: {report.model}/{report.previous})" if report.previous else ""
    warning = [f"warning: {report.warning}"] if report.warning else []
    if report.exit_code == INTERRUPTED:
        lines = [f"{what} was stopped; everything is as it was before. {report.outcome.reason}"]
        return [*lines, *warning]
    lines = {
        "done": [
            f"{what} is in production{before}: {len(report.hosts)} hosts in {report.seconds} s."
        ],
        "unchanged": [f"no change: {report.outcome.reason}."],
        "refused": [f"{what} was not activated on any host. {report.outcome.reason}"],
        "rolled-back": [
            f"{what} failed and everything is as it was before. {report.outcome.reason}",
            "See fab status; then release a better version.",
        ],
        "manual-intervention": [
            f"{what} failed, and not every host could be brought back. {report.outcome.reason}",
            *(f"{host}: {reason}" for host, reason in report.outcome.stuck.items()),
            f"Mend the host, then run fab rollback --model {report.model}, which tries again.",
        ],
    }[report.outcome.kind]
    return [*lines, *warning]


def _plan_text(made: RolloutPlan) -> list[str]:
    from serving.fleet.cli.tables import plan_title, wave_name

    lines = plan_title(made)
    for number, wave in enumerate(made.waves):
        name = wave_name(number)
        lines += [f"{name:<8} {change.host.name:<10} {change.reason}" for change in wave]
    lines += [f"{'-':<8} {host.name:<10} no change: {reason}" for host, reason in made.unchanged]
    return lines


def _plan_json(made: RolloutPlan) -> dict[str, Any]:
    return {
        "model": made.shipment.model,
        "version": made.shipment.version,
        "digest": made.shipment.digest,
        "resumes": made.resumes,
        "waves": [
            [
                {"host": c.host.name, "region": c.host.region, "serves": list(c.before.served),
                 "shall_serve": list(c.versions), "reason": c.reason}
                for c in wave
            ]
            for wave in made.waves
        ],
        "unchanged": {host.name: reason for host, reason in made.unchanged},
    }  # fmt: skip


def _progress(as_json: bool) -> Progress:
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


def _print(
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


def _number(text: str | None, command: str) -> int | None:
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
