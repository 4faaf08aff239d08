"""The tasks of `fab -l` that roll a version out, or show rollouts: parse, call, print."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from invoke import Context, task
from invoke.exceptions import Exit

from serving.fleet.cli.task_output import (
    print_result,
    progress_lines,
    run_composed,
    run_fleet,
    version_number,
)

if TYPE_CHECKING:
    from serving.fleet.cli.command import Controls, RolloutReport
    from serving.fleet.rollout.rollout_plan import RolloutPlan
    from serving.fleet.rollout.rollout_run import Progress

__all__ = [
    "deploy", "heal", "history", "plan", "report", "rollback", "status", "watch",
]  # fmt: skip

_HELP = {
    "model": "the model's name; may be left out while the store has only one",
    "set": "one key of conf/rollout.yaml, as in --set rollout.strategy=restart; may be repeated",
    "json": "print one JSON object on stdout; progress goes to stderr",
}
_VERSION = {"version": "the version's number; the newest in the store when left out"}
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
_ROLLBACK = {
    **_HELP,
    **_TOLD,
    "skip": _WHICH["skip"],
    "version": "the version to go back to; on a terminal, a choice",
}


@task(
    iterable=["set"],
    help={**_HELP, **_VERSION, **_WHICH, "simulate": _SIMULATE, "seed": "of the draw"},
)
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

        drawn = run_fleet(set, lambda on: rehearsals(on, simulate, seed))
        print_result([one.as_json() for one in drawn], json, [str(one) for one in drawn])
        return
    from serving.fleet.cli.command import preview
    from serving.fleet.cli.edge_configs import plan_lines, read_edges
    from serving.fleet.cli.host_commands import selection_of
    from serving.fleet.cli.tables import plan_json, plan_table, plan_text

    def act(on: Controls) -> RolloutPlan:
        chosen = selection_of(on, skip, hosts, region)
        return preview(on, model, version_number(version, "plan"), chosen)

    made: RolloutPlan = run_fleet(set, act)
    edges: list[str] = run_composed("rollout", set, lambda config: plan_lines(read_edges(config)))
    content = {**plan_json(made), "edges": edges}
    print_result(content, json, plan_text(made), lambda: plan_table(made))
    if edges and not json:
        print_result({}, False, edges)


@task(iterable=["set"], help={**_HELP, **_VERSION, **_TOLD, **_WHICH})
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
        return act(on, model, version_number(version, "deploy"), progress, reason, chosen)

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
        named = version_number(version, "rollback")
        return named if named or json else picked_version(on, model)

    number = run_fleet(set, pick)

    def roll(on: Controls, progress: Progress) -> RolloutReport:
        return act(on, model, number, progress, reason, selection_of(on, skip, "", ""))

    _roll("rollback", set, json, as_, events, roll)


@task(iterable=["set"], help={**_HELP, **_TOLD, **_WHICH})
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


@task(iterable=["set"], help=_HELP)
def status(
    _: Context, model: str | None = None, set: list[str] | None = None, json: bool = False
) -> None:
    """The served versions of each host, its state at the edge, and any drift."""
    from conf.errors import FAILED
    from serving.fleet.cli.status import Status, fleet_status
    from serving.fleet.cli.status_view import status_lines, status_tables

    found: Status = run_fleet(set, lambda on: fleet_status(on, model))
    content = {**asdict(found), "drifts": found.drifts}
    print_result(content, json, status_lines(found), lambda: status_tables(found))
    if found.drifts:
        raise Exit(code=FAILED)


@task(iterable=["set"], help={**_HELP, "n": "how many; 20 without it"})
def history(
    _: Context,
    model: str | None = None,
    n: str | None = None,
    set: list[str] | None = None,
    json: bool = False,
) -> None:
    """The rollouts so far: who, why, when, how each ended, how long it took."""
    from serving.fleet.cli.history import history_lines, history_table, rollout_history

    rows = run_fleet(set, lambda on: rollout_history(on, model, n))
    content = [asdict(row) for row in rows]
    print_result(
        content, json, history_lines(rows), (lambda: history_table(rows)) if rows else None
    )


@task(iterable=["set"], help={key: _HELP[key] for key in ("model", "set")})
def watch(_: Context, model: str | None = None, set: list[str] | None = None) -> None:
    """Follow the rollout that is running, of whoever it is; changes nothing."""
    from serving.fleet.cli.watch import watch_rollout

    code = run_fleet(set, lambda on: watch_rollout(on, model, progress_lines(False)))
    if code:
        raise Exit(code=code)


@task(
    positional=["rollout"],
    iterable=["set"],
    help={"rollout": "its id, or a part of it, also of an upgrade; the newest rollout without",
          "set": _HELP["set"],
          "out": "the file to write; <journal>/pages/<rollout>.html without"},
)  # fmt: skip
def report(
    _: Context, rollout: str = "", out: str | None = None, set: list[str] | None = None
) -> None:
    """Write one rollout, or one upgrade, as an HTML page: machines over time, and how it ended."""
    from serving.fleet.cli.watch import write_report

    print_result({}, False, [run_fleet(set, lambda on: write_report(on, rollout or None, out))])


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
    lines = progress_lines(as_json or to_stdout)
    live = not as_json and not to_stdout
    found = run_fleet(
        overrides,
        lambda on: roll_for_audience(
            on, f"fab {command}", lines, events, live, lambda show: act(on, show)
        ),
    )
    _finish(found, as_json, silent=to_stdout)


def _finish(report: RolloutReport, as_json: bool, silent: bool = False) -> None:
    from serving.fleet.cli.report_lines import report_lines

    if not silent:
        content = {**asdict(report), "exit_code": report.exit_code}
        print_result(content, as_json, report_lines(report))
    if report.exit_code:
        raise Exit(code=report.exit_code)
