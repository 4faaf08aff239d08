"""The tasks that `fab -l` lists: parse, call one function, print.

Exit codes: 0 as wished; 1 a host failed and everything is as before, or `status` found drift; 2
refused, nothing was changed; 3 a host could not be brought back.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from invoke import Context, task
from invoke.exceptions import Exit

if TYPE_CHECKING:
    from serving.fleet.cli.command import Controls, Report
    from serving.fleet.plan.rollout_plan import Plan
    from serving.fleet.rollout.engine import Progress

__all__ = ["deploy", "heal", "plan", "rollback", "status"]  # a fabfile.py imports *

REFUSED, DRIFT = 2, 1
_HELP = {
    "model": "the model's name; may be left out while the store has only one",
    "version": "the version's number; the newest in the store when left out",
    "set": "one key of conf/rollout.yaml, as in --set rollout.strategy=restart; may be repeated",
    "json": "print one JSON object on stdout; progress goes to stderr",
}
_ROLLBACK = {**_HELP, "version": "the version to go back to; the one in production before"}


@task(iterable=["set"], help=_HELP)
def plan(
    _: Context, model: str = "", version: str = "", set: list[str] | None = None, json: bool = False
) -> None:
    """What a deployment would change on each host, and why; touches nothing."""
    from serving.fleet.cli.command import preview

    made = _run(set, lambda on: preview(on, model or None, _number(version)))
    _print(_plan_json(made), json, _plan_text(made))


@task(iterable=["set"], help=_HELP)
def deploy(
    _: Context, model: str = "", version: str = "", set: list[str] | None = None, json: bool = False
) -> None:
    """Walk a signed version through the fleet, canary first; undo all at the first failure."""
    from serving.fleet.cli.command import deploy as act

    _finish(_run(set, lambda on: act(on, model or None, _number(version), _progress(json))), json)


@task(iterable=["set"], help=_ROLLBACK)
def rollback(
    _: Context, model: str = "", version: str = "", set: list[str] | None = None, json: bool = False
) -> None:
    """Go back to the version that was in production before; needs no argument."""
    from serving.fleet.cli.command import rollback as act

    _finish(_run(set, lambda on: act(on, model or None, _number(version), _progress(json))), json)


@task(iterable=["set"], help={key: _HELP[key] for key in ("model", "set", "json")})
def heal(_: Context, model: str = "", set: list[str] | None = None, json: bool = False) -> None:
    """Bring every host back to the version in production."""
    from serving.fleet.cli.command import heal as act

    _finish(_run(set, lambda on: act(on, model or None, _progress(json))), json)


@task(iterable=["set"], help={key: _HELP[key] for key in ("model", "set", "json")})
def status(_: Context, model: str = "", set: list[str] | None = None, json: bool = False) -> None:
    """Which host serves which version, what the edge thinks of it, and any drift."""
    from serving.fleet.cli.status import Status, fleet_status

    found: Status = _run(set, lambda on: fleet_status(on, model or None))
    rows = [
        f"{row.host:<10} {row.region:<9} {row.model:<10} "
        f"{' '.join(str(v) for v in row.serving) or '-':<8} answers {row.answers or '-':<3} "
        f"{row.digest[:12] or '-':<12} {row.edge}" + "".join(f"\n{'':<10} ! {d}" for d in row.drift)
        for row in found.rows
    ]
    rows += [f"! {remark}" for remark in found.remarks]
    if not rows:
        rows = ["nothing was deployed yet: fab deploy"]
    _print({**asdict(found), "drifts": found.drifts}, json, rows)
    if found.drifts:
        raise Exit(code=DRIFT)


def _run(overrides: list[str] | None, act: Callable[[Controls], Any]) -> Any:
    """Compose the config and do `act`; what was refused becomes a sentence and exit code 2."""
    from conf import ConfigError, compose, enter_project
    from serving.fleet.cli.command import controls
    from serving.fleet.inventory import FleetError

    try:
        enter_project()
        return act(controls(compose("rollout", overrides or [])))
    except (FleetError, ConfigError) as error:
        print(f"fab: {error}", file=sys.stderr)
        raise Exit(code=REFUSED) from error


def _finish(report: Report, as_json: bool) -> None:
    _print({**asdict(report), "exit_code": report.exit_code}, as_json, _report_text(report))
    if report.exit_code:
        raise Exit(code=report.exit_code)


def _report_text(report: Report) -> list[str]:
    what = f"{report.model}/{report.version}"
    before = f" (before: {report.model}/{report.previous})" if report.previous else ""
    lines = {
        "done": [
            f"{what} is in production{before}: {len(report.hosts)} hosts in {report.seconds} s."
        ],
        "unchanged": [f"no change: {report.outcome.reason}."],
        "refused": [f"{what} was refused; nothing was activated. {report.outcome.reason}"],
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
    return [*lines, *([f"warning: {report.warning}"] if report.warning else [])]


def _plan_text(made: Plan) -> list[str]:
    shipment = made.shipment
    lines = [f"{shipment} ({shipment.digest[:12]}, {shipment.size / (1 << 20):.1f} MiB)"]
    if made.resumes:
        lines.append(f"continues rollout {made.resumes}, which did not end")
    for number, wave in enumerate(made.waves):
        name = "canary" if number == 0 else f"wave {number}"
        lines += [f"{name:<8} {change.host.name:<10} {change.reason}" for change in wave]
    lines += [f"{'-':<8} {host.name:<10} no change: {reason}" for host, reason in made.unchanged]
    return lines


def _plan_json(made: Plan) -> dict[str, Any]:
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
    began, stream = time.monotonic(), sys.stderr if as_json else sys.stdout

    def progress(host: str, step: str, detail: str) -> None:
        seconds = time.monotonic() - began
        print(f"{seconds:6.1f} s  {host:<10} {step:<8} {detail}".rstrip(), file=stream, flush=True)

    return progress


def _print(content: Any, as_json: bool, lines: list[str]) -> None:
    print(json.dumps(content, indent=2) if as_json else "\n".join(lines), flush=True)


def _number(text: str) -> int | None:
    if not text:
        return None
    if not text.isdigit() or int(text) < 1:
        from serving.fleet.inventory import FleetError

        raise FleetError(f"--version is a number such as 3, not {text!r}.")
    return int(text)
