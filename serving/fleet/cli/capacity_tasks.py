"""The tasks of `fab -l` about capacity and load: parse, call, print."""

from __future__ import annotations

import json as json_format
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from invoke import Context, task
from invoke.exceptions import Exit

from serving.fleet.cli.task_output import guarded, print_result, progress_lines, run_composed

if TYPE_CHECKING:
    from serving.fleet.cli.autoscale import Scaling
    from serving.fleet.cli.replays import Replays

__all__ = ["autoscale", "capacity"]

_SET = "one key of conf/capacity.yaml, as in --set capacity.policy.target=0.5"
_JSON = "print one JSON object on stdout; progress goes to stderr"
_PERIOD_S = 60


@task(iterable=["set"], help={"model": "only this model", "set": _SET, "json": _JSON})
def capacity(
    _: Context, model: str | None = None, set: list[str] | None = None, json: bool = False
) -> None:
    """Load against what the hosts bear, how many may fail, and when growth fills them."""
    from serving.fleet.capacity.headroom import headroom_line
    from serving.fleet.cli.capacity import fleet_capacity, host_line

    found = run_composed("capacity", set, lambda config: fleet_capacity(config, model))
    lines = [headroom_line(one) for one in found.models] or ["nothing is in production."]
    print_result(asdict(found), json, lines + [host_line(one) for one in found.hosts])


@task(
    iterable=["set"],
    help={
        "region": "only this region",
        "plan": "show the decisions and change nothing",
        "every": "go on until Ctrl-C, with so many seconds between two rounds, as in --every 60",
        "simulate": "the policy against traffic that is drawn, or recorded in --traffic, in memory",
        "traffic": "with --simulate: lines of an edge's request log, a file",
        "days": "with --simulate: of drawn traffic",
        "seed": "with --simulate: of the draw",
        "set": _SET,
        "json": f"{_JSON}; with --every one in a line for each round",
    },
)
def autoscale(
    _: Context,
    region: str = "",
    plan: bool = False,
    every: int = 0,
    simulate: bool = False,
    traffic: str = "",
    days: int = 28,
    seed: int = 1,
    set: list[str] | None = None,
    json: bool = False,
) -> None:
    """Bring hosts in from standby, or put them there, as load and policy want."""
    guarded(lambda: _refuse(every, simulate, traffic, plan))
    if simulate:
        from serving.fleet.cli.replays import replays, replays_lines, replays_table

        made: Replays = run_composed(
            "capacity",
            set,
            lambda config: replays(config, region, days, seed, traffic, every or _PERIOD_S),
        )
        print_result(asdict(made), json, replays_lines(made), lambda: replays_table(made))
        return
    from conf import compose
    from serving.fleet.cli.autoscale import autoscale as act
    from serving.fleet.cli.autoscale import exit_code, scaling_lines

    progress = progress_lines(json)

    def round_once() -> list[Scaling]:
        return act(compose("capacity", set or []), region, plan, progress)

    if every:
        _follow(round_once, every, plan, json)
        return
    found = guarded(round_once)
    lines = [line for one in found for line in scaling_lines(one, plan)]
    print_result([asdict(one) for one in found], json, lines)
    if code := exit_code(found):
        raise Exit(code=code)


def _follow(
    round_once: Callable[[], list[Scaling]], every_s: int, plan: bool, as_json: bool
) -> None:
    """Print each round that differs from the one before, or each as a line of JSON."""
    from conf.names import printable
    from serving.fleet.cli.autoscale import autoscale_forever, scaling_key, scaling_lines

    shown: list[Any] = []

    def show(found: list[Scaling]) -> None:
        if as_json:
            print(json_format.dumps([asdict(one) for one in found]), flush=True)
            return
        now = [scaling_key(one) for one in found]
        if now != shown:
            shown[:] = now
            print_result({}, False, [line for one in found for line in scaling_lines(one, plan)])

    def complain(sentence: str) -> None:
        print(f"fab: {printable(sentence)}", file=sys.stderr, flush=True)

    def wait() -> None:
        time.sleep(every_s)

    end = guarded(lambda: autoscale_forever(round_once, show, complain, wait))
    if not as_json:
        print_result({}, False, [end])


def _refuse(every: int, simulate: bool, traffic: str, plan: bool) -> None:
    """Raises FleetConfigError for options that do not go together."""
    from serving.fleet.errors import FleetConfigError

    if every < 0:
        raise FleetConfigError(f"--every {every}: type seconds, as in --every 60.")
    if traffic and not simulate:
        raise FleetConfigError(
            f"--traffic is for a rehearsal. Type: fab autoscale --simulate --traffic {traffic}"
        )
    if simulate and plan:
        raise FleetConfigError("--simulate changes nothing: type it without --plan.")
