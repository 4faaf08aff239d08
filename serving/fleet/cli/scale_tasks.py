"""The task `fab scale` of `fab -l`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Context, task

from serving.fleet.cli.task_output import print_result, progress_lines, run_fleet

if TYPE_CHECKING:
    from serving.fleet.cli.command import Controls
    from serving.fleet.rollout.rollout_run import Progress

__all__ = ["scale"]

_AS_PACKAGED = "default"
_SCALE = {
    "model": "the model whose instances are counted; with --instances",
    "instances": "of the model, on every host; default is as many as its package has",
    "hosts": "of the region that take traffic; the others stay on standby",
    "region": "us-...; may be left out while the fleet has only one",
    "reason": "for the journal and the next person",
    "plan": "only show what would change",
    "set": "one key of conf/rollout.yaml, as in --set rollout.drain_timeout_s=20; may be repeated",
}


@task(iterable=["set"], help=_SCALE)
def scale(
    _: Context,
    model: str | None = None,
    instances: str = "",
    hosts: str = "",
    region: str = "",
    reason: str = "",
    plan: bool = False,
    set: list[str] | None = None,
) -> None:
    """Change the instances of a model, or how many hosts of a region take traffic."""
    progress = progress_lines(False)

    def act(on: Controls) -> list[str]:
        if bool(instances) == bool(hosts):
            raise _usage("one of --instances and --hosts")
        if hosts:
            return _hosts(on, region, _number("hosts", hosts), reason, plan, progress)
        return _instances(on, model, instances, reason, plan, progress)

    print_result({}, False, run_fleet(set, act))


def _hosts(
    on: Controls, region: str, hosts: int, reason: str, plan: bool, progress: Progress
) -> list[str]:
    from serving.fleet.cli.scale import plan_hosts, scale_hosts

    if not region and len(on.fleet.regions) == 1:
        region = on.fleet.regions[0].name
    if plan:
        return plan_hosts(on, region, hosts)
    return [scale_hosts(on, region, hosts, reason, progress)]


def _instances(
    on: Controls, model: str | None, instances: str, reason: str, plan: bool, progress: Progress
) -> list[str]:
    from serving.fleet.cli.command import only_model
    from serving.fleet.cli.scale import plan_instances, scale_instances

    count = None if instances == _AS_PACKAGED else _number("instances", instances)
    name = only_model(on.store, model, "scale")
    if plan:
        return plan_instances(on, name, count)
    return [scale_instances(on, name, count, reason, progress)]


def _number(option: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        from conf.names import shown

        raise _usage(f"--{option} with a number, not {shown(text)}")
    return int(text)


def _usage(what: str) -> Exception:
    from serving.fleet.errors import FleetConfigError

    return FleetConfigError(
        f"fab scale takes {what}. Type: fab scale --hosts 2 --region us-..., or fab scale --model "
        "NAME --instances 2"
    )
