"""The tasks that `fab -l` lists: parse, call one function, print.

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
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Context, task
from invoke.exceptions import Exit

if TYPE_CHECKING:
    from rich.console import RenderableType

    from serving.fleet.cli.command import Controls, RolloutReport
    from serving.fleet.rollout.engine import Progress
    from serving.fleet.rollout.orders import OrderName
    from serving.fleet.rollout.rollout_plan import RolloutPlan

__all__ = [
    "abort",
    "approve",
    "capacity",
    "deploy",
    "drain",
    "heal",
    "history",
    "lock",
    "pause",
    "plan",
    "promote",
    "quarantine",
    "report",
    "restart",
    "resume",
    "revoke",
    "rollback",
    "status",
    "undrain",
    "unlock",
    "watch",
]  # a fabfile.py imports *

_HELP = {
    "model": "the model's name; may be left out while the store has only one",
    "version": "the version's number; the newest in the store when left out",
    "set": "one key of conf/rollout.yaml, as in --set rollout.strategy=restart; may be repeated",
    "json": "print one JSON object on stdout; progress goes to stderr",
}
_TOLD = {
    "reason": "why, for the journal and the next person",
    "as": "who you are, where the account is not yours alone; or set LOCKGATE_AS",
    "events": "a file that gets each event as a line of JSON; - is stdout",
}
_WHICH = {
    "skip": "hosts that are left out and get no traffic, as in --skip e1,w0",
    "hosts": "only these hosts, as in --hosts e1,w0; a deployment then moves no request",
    "region": "only the hosts of one region",
}
_SIMULATE = "a drawn fleet in memory instead, HOSTSxREGIONS as in --simulate 1000x12, with failures"
_HOST = {"host": "its name", "reason": "for the journal and the next person"}
_ORDER = {"reason": "for the journal", "set": _HELP["set"]}
_UNLOCK = {
    "reason": "for the next person",
    "force": "also a rollout's own lock: it stops before its next step",
}
_REVOKE = {
    "model": _HELP["model"],
    "version": "the version's number",
    "reason": "for the next person",
}
_ROLLBACK = {
    **_HELP,
    **_TOLD,
    "skip": _WHICH["skip"],
    "version": "the version to go back to; on a terminal, a choice",
}


@task(iterable=["set"], help={**_HELP, **_WHICH, "simulate": _SIMULATE, "seed": "of the draw"})
def plan(
    _: Context,
    model: str | None = None,
    version: str | None = None,
    set: list[str] | None = None,
    json: bool = False,
    skip: str = "",
    hosts: str = "",
    region: str = "",
    simulate: str = "",
    seed: int = 1,
) -> None:
    """The changes of a deployment on each host, with reasons; touches nothing."""
    if simulate:
        from serving.fleet.cli.rehearsals import rehearsals

        drawn = _run(set, lambda on: rehearsals(on, simulate, seed))
        _print([one.as_json() for one in drawn], json, [str(one) for one in drawn])
        return
    from serving.fleet.cli.command import preview
    from serving.fleet.cli.edge_configs import plan_lines, read_edges
    from serving.fleet.cli.host_commands import selection_of
    from serving.fleet.cli.tables import plan_table

    def act(on: Controls) -> RolloutPlan:
        chosen = selection_of(on, skip, hosts, region)
        return preview(on, model, _number(version, "plan"), chosen)

    made: RolloutPlan = _run(set, act)
    edges: list[str] = run_composed("rollout", set, lambda config: plan_lines(read_edges(config)))
    content = {**_plan_json(made), "edges": edges}
    _print(content, json, _plan_text(made), lambda: plan_table(made))
    if edges and not json:
        _print({}, False, edges)


@task(iterable=["set"], help={**_HELP, **_TOLD, **_WHICH})
def deploy(
    _: Context,
    model: str | None = None,
    version: str | None = None,
    set: list[str] | None = None,
    json: bool = False,
    reason: str = "",
    as_: str = "",
    events: str | None = None,
    skip: str = "",
    hosts: str = "",
    region: str = "",
) -> None:
    """Walk a signed version through the fleet, canary first; undo all at the first failure."""
    from serving.fleet.cli.command import deploy as act
    from serving.fleet.cli.host_commands import selection_of

    def roll(on: Controls, progress: Progress) -> RolloutReport:
        chosen = selection_of(on, skip, hosts, region)
        return act(on, model, _number(version, "deploy"), progress, reason, chosen)

    _roll("deploy", set, json, as_, events, roll)


@task(iterable=["set"], help=_ROLLBACK)
def rollback(
    _: Context,
    model: str | None = None,
    version: str | None = None,
    set: list[str] | None = None,
    json: bool = False,
    reason: str = "",
    as_: str = "",
    events: str | None = None,
    skip: str = "",
) -> None:
    """Go back to the version that was in production before; needs no argument."""
    from serving.fleet.cli.command import rollback as act
    from serving.fleet.cli.host_commands import selection_of
    from serving.fleet.cli.picker import picked_version

    def pick(on: Controls) -> int | None:
        named = _number(version, "rollback")
        return named if named or json else picked_version(on, model)

    number = _run(set, pick)

    def roll(on: Controls, progress: Progress) -> RolloutReport:
        return act(on, model, number, progress, reason, selection_of(on, skip, "", ""))

    _roll("rollback", set, json, as_, events, roll)


@task(
    iterable=["set"],
    help={key: {**_HELP, **_TOLD, **_WHICH}[key]
          for key in ("model", "set", "json", *_TOLD, *_WHICH)},
)  # fmt: skip
def heal(
    _: Context,
    model: str | None = None,
    set: list[str] | None = None,
    json: bool = False,
    reason: str = "",
    as_: str = "",
    events: str | None = None,
    skip: str = "",
    hosts: str = "",
    region: str = "",
) -> None:
    """Bring every host back to the version in production."""
    from serving.fleet.cli.command import heal as act
    from serving.fleet.cli.host_commands import selection_of

    def roll(on: Controls, progress: Progress) -> RolloutReport:
        return act(on, model, progress, reason, selection_of(on, skip, hosts, region))

    _roll("heal", set, json, as_, events, roll)


@task(iterable=["set"], help={key: _HELP[key] for key in ("model", "set", "json")})
def status(
    _: Context, model: str | None = None, set: list[str] | None = None, json: bool = False
) -> None:
    """The served versions of each host, its state at the edge, and any drift."""
    from conf.errors import FAILED
    from serving.fleet.cli.status import Status, fleet_status
    from serving.fleet.cli.status_view import status_lines, status_tables

    found: Status = _run(set, lambda on: fleet_status(on, model))
    content = {**asdict(found), "drifts": found.drifts}
    _print(content, json, status_lines(found), lambda: status_tables(found))
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


@task(positional=["host"], iterable=["set"], help={**_HOST, "set": _HELP["set"]})
def quarantine(_: Context, host: str = "", reason: str = "", set: list[str] | None = None) -> None:
    """Keep a host out of traffic and out of every rollout; needs no SSH to it."""
    _host_order("quarantine", host, reason, set)


@task(positional=["host"], iterable=["set"], help={**_HOST, "set": _HELP["set"]})
def drain(_: Context, host: str = "", reason: str = "", set: list[str] | None = None) -> None:
    """Take a host out of traffic when it has finished what it had."""
    _host_order("drain", host, reason, set)


@task(positional=["host"], iterable=["set"], help={**_HOST, "set": _HELP["set"]})
def undrain(_: Context, host: str = "", reason: str = "", set: list[str] | None = None) -> None:
    """Bring a host to what production is, prove it, and give it traffic again."""
    _host_order("undrain", host, reason, set)


@task(positional=["host"], iterable=["set"], help={**_HOST, "set": _HELP["set"]})
def restart(_: Context, host: str = "", reason: str = "", set: list[str] | None = None) -> None:
    """Restart a host's Triton, drained; no version changes."""
    _host_order("restart", host, reason, set)


@task(iterable=["set"], help=_ORDER)
def pause(_: Context, reason: str = "", set: list[str] | None = None) -> None:
    """Have the running rollout stay as it is until fab resume."""
    _order("pause", reason, set)


@task(iterable=["set"], help=_ORDER)
def resume(_: Context, reason: str = "", set: list[str] | None = None) -> None:
    """Let a paused rollout go on."""
    _order("resume", reason, set)


@task(iterable=["set"], help=_ORDER)
def approve(_: Context, reason: str = "", set: list[str] | None = None) -> None:
    """Let a rollout go past the step at which it waits for a person."""
    _order("approve", reason, set)


@task(iterable=["set"], help=_ORDER)
def promote(_: Context, reason: str = "", set: list[str] | None = None) -> None:
    """Have the running rollout skip its watches and give the new version all traffic."""
    _order("promote", reason, set)


@task(iterable=["set"], help=_ORDER)
def abort(_: Context, reason: str = "", set: list[str] | None = None) -> None:
    """Have the running rollout stop and undo everything."""
    _order("abort", reason, set)


@task(
    iterable=["set"],
    help={**{key: _HELP[key] for key in ("model", "set", "json")}, "n": "how many; 20 without it"},
)
def history(
    _: Context,
    model: str | None = None,
    n: str | None = None,
    set: list[str] | None = None,
    json: bool = False,
) -> None:
    """The rollouts so far: who, why, when, how each ended, how long it took."""
    from serving.fleet.cli.history import history_lines, history_table, rollout_history

    rows = _run(set, lambda on: rollout_history(on, model, n))
    content = [asdict(row) for row in rows]
    _print(content, json, history_lines(rows), (lambda: history_table(rows)) if rows else None)


@task(iterable=["set"], help={key: _HELP[key] for key in ("model", "set")})
def watch(_: Context, model: str | None = None, set: list[str] | None = None) -> None:
    """Follow the rollout that is running, of whoever it is; changes nothing."""
    from serving.fleet.cli.watch import watch_rollout

    code = _run(set, lambda on: watch_rollout(on, model, _progress(False)))
    if code:
        raise Exit(code=code)


@task(
    positional=["rollout"],
    iterable=["set"],
    help={"rollout": "its id, or a part of it; the newest without", "set": _HELP["set"],
          "out": "the file to write; <journal>/pages/<rollout>.html without"},
)  # fmt: skip
def report(
    _: Context, rollout: str = "", out: str | None = None, set: list[str] | None = None
) -> None:
    """Write one rollout as an HTML page: hosts and edges over time, failed requests, verdicts."""
    from serving.fleet.cli.watch import write_report

    _print({}, False, [_run(set, lambda on: write_report(on, rollout or None, out))])


def _roll(
    command: str,
    overrides: list[str] | None,
    as_json: bool,
    person: str,
    events: str | None,
    act: Callable[[Controls, Progress], RolloutReport],
) -> None:
    """Do a rollout before its audience, print its report, end with its exit code."""
    from serving.fleet.cli.audience import roll_for_audience

    if person:
        os.environ["LOCKGATE_AS"] = person
    to_stdout = events == "-"
    lines = _progress(as_json or to_stdout)
    live = not as_json and not to_stdout
    found = _run(
        overrides,
        lambda on: roll_for_audience(
            on, f"fab {command}", lines, events, live, lambda show: act(on, show)
        ),
    )
    _finish(found, as_json, silent=to_stdout)


@task(
    iterable=["set"],
    help={
        "model": "only this model",
        "set": "one key of conf/capacity.yaml, as in --set capacity.policy.target=0.5",
        "json": _HELP["json"],
    },
)
def capacity(
    _: Context, model: str | None = None, set: list[str] | None = None, json: bool = False
) -> None:
    """Load against what the hosts bear, how many may fail, and when growth fills them."""
    from serving.fleet.capacity.headroom import headroom_line
    from serving.fleet.cli.capacity import fleet_capacity

    found = run_composed("capacity", set, lambda config: fleet_capacity(config, model))
    lines = [headroom_line(one) for one in found]
    _print([asdict(one) for one in found], json, lines or ["nothing is in production."])


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
        _refuse_core_hosts(sys.argv[1:])
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


def _refuse_core_hosts(words: list[str]) -> None:
    """Raises FleetConfigError for fab's own -H: it would do a task once for each of the hosts."""
    from serving.fleet.errors import FleetConfigError

    names = {name.replace("_", "-") for name in __all__}
    before = list(itertools.takewhile(lambda word: word not in names, words))
    if any(word.startswith("-H") or word.split("=")[0] == "--hosts" for word in before):
        raise FleetConfigError(
            "fab -H runs a task once for each host, and a rollout is one for all. Put the names "
            "behind the task: fab deploy --hosts e1,w0, or --skip e1"
        )


def _host_order(command: str, host: str, reason: str, overrides: list[str] | None) -> None:
    from serving.fleet.cli.host_commands import order_host

    progress = _progress(False)
    done = _run(overrides, lambda on: order_host(on, command, host, reason, progress))
    _print({}, False, [done])


def _order(order: OrderName, reason: str, overrides: list[str] | None) -> None:
    from serving.fleet.cli.controls import order_rollout

    _print({}, False, [_run(overrides, lambda on: order_rollout(on, order, reason))])


def _exit(sentence: str, code: int) -> Exit:
    from conf.names import printable

    try:
        print(f"fab: {printable(sentence)}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        _detach(sys.stderr.fileno())  # as in `fab status 2>&1 | head`
    return Exit(code=code)


def _finish(report: RolloutReport, as_json: bool, silent: bool = False) -> None:
    if not silent:
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
        "prepared": [
            f"{what} is loaded and proven on {', '.join(report.hosts)}; no request moved."
        ],
        "incomplete": [
            f"{what}: not everything is done. {report.outcome.reason}".rstrip(),
            *(f"{place}: {reason}" for place, reason in report.outcome.stuck.items()),
            "See fab status for what is left.",
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
