"""The tasks of `fab -l` about capacity and load: parse, call, print."""

from __future__ import annotations

from dataclasses import asdict

from invoke import Context, task

from serving.fleet.cli.task_output import print_result, run_composed

__all__ = ["capacity"]

_SET = "one key of conf/capacity.yaml, as in --set capacity.policy.target=0.5"
_JSON = "print one JSON object on stdout; progress goes to stderr"


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
