"""The tasks of `fab -l` that set up hosts: parse, call one function, print."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from invoke import Context, task

from serving.fleet.cli.task_output import (
    guarded,
    print_result,
    progress_lines,
    run_composed,
    run_fleet,
)

if TYPE_CHECKING:
    from serving.fleet.cli.bootstrap import BootstrapReport, HostSetup
    from serving.fleet.cli.upgrade_order import UpgradeOrder

__all__ = [
    "add",
    "bootstrap",
    "exec_check",
    "gc",
    "logs",
    "pin",
    "remove",
    "replace",
    "upgrade",
    "verify",
    "wheelhouse",
]

_SET = "one key of conf/bootstrap.yaml, as in --set bootstrap.memory_max=24G; may be repeated"


@task(iterable=["set"], help={"set": _SET})
def wheelhouse(_: Context, set: list[str] | None = None) -> None:
    """Get everything that hosts install onto this machine; hosts then need no internet."""
    from serving.fleet.cli.bootstrap import wheelhouse as act

    made = _run(set, act)
    size = f"{made.wheels} packages, {made.size >> 20} MiB"
    print_result({}, False, [f"{size}, are in {made.folder}. Type: fab bootstrap HOST"])


@task(
    iterable=["set"],
    help={
        "host": "the host's name in conf/site, or that of an edge on a machine of its own",
        "fingerprint": "of its ed25519 key, read on its own console: SHA256:...",
        "set": _SET,
    },
)
def pin(_: Context, host: str, fingerprint: str = "", set: list[str] | None = None) -> None:
    """Trust a new host's key, which must have the fingerprint that its console shows."""
    from serving.fleet.cli.bootstrap import pin as act

    print_result({}, False, [_run(set, lambda on: act(on, host, fingerprint))])


@task(
    iterable=["set"],
    help={
        "host": "the host's name in conf/site, or that of an edge on a machine of its own",
        "user": "root, or an account there with sudo without a password",
        "key": "the SSH key of that account",
        "plan": "only show what differs",
        "units": "only print the units of systemd that it writes; asks nobody",
        "restart": "also where its Triton must restart for it: take it out of traffic first",
        "json": "print one JSON object on stdout; progress goes to stderr",
        "set": _SET,
    },
)
def bootstrap(
    _: Context,
    host: str,
    user: str = "",
    key: str = "",
    plan: bool = False,
    units: bool = False,
    restart: bool = False,
    set: list[str] | None = None,
    json: bool = False,
) -> None:
    """Make a bare host a serving host, or an edge, or mend one; done twice it changes nothing."""
    from serving.fleet.cli.bootstrap import bootstrap as make_host
    from serving.fleet.cli.bootstrap import host_units
    from serving.fleet.cli.edge_bootstrap import bootstrap_edge

    if units:
        print_result({}, False, _run(set, lambda on: host_units(on, host)))
        return
    progress = progress_lines(json)

    def report(step: str, detail: str) -> None:
        progress(host, step, detail)

    def act(on: HostSetup) -> BootstrapReport:
        if host in on.site.edges and host not in on.site.hosts:
            return bootstrap_edge(on, host, user, key, plan, report)
        return make_host(on, host, user, key, plan, restart, report)

    made = _run(set, act)
    print_result(asdict(made), json, _lines(made, plan))


_SITE = "which site: conf/site/NAME.yaml; the project's when left out"
_ADDRESS = "its IP address or DNS name"


@task(help={"host": "its name", "address": _ADDRESS, "region": "us-...", "site": _SITE})
def add(_: Context, host: str, address: str = "", region: str = "", site: str = "") -> None:
    """Add a host to the site's file; fab bootstrap then makes it a serving host."""
    from serving.fleet.cli.site_hosts import add as act

    print_result({}, False, guarded(lambda: act(site, host, address, region)))


@task(help={"host": "its name", "site": _SITE})
def remove(_: Context, host: str, site: str = "") -> None:
    """Take a host out of the site's file; the machine stays as it is."""
    from serving.fleet.cli.site_hosts import remove as act

    print_result({}, False, guarded(lambda: act(site, host)))


@task(help={"old": "its name", "new": "the new one's", "address": _ADDRESS, "site": _SITE})
def replace(_: Context, old: str, new: str, address: str = "", site: str = "") -> None:
    """Put another machine in a host's place, in the site's file."""
    from serving.fleet.cli.site_hosts import replace as act

    print_result({}, False, guarded(lambda: act(site, old, new, address)))


@task(
    iterable=["set"],
    help={
        "hosts": "names of hosts, or of edges on machines of their own, with commas between them; "
        "every host when left out",
        "user": "root, or an account there with sudo without a password",
        "key": "the SSH key of that account",
        "plan": "only show what differs",
        "reason": "why, for the journal and the next person",
        "set": "one key of conf/rollout.yaml or conf/bootstrap.yaml; may be repeated",
    },
)
def upgrade(
    _: Context,
    hosts: str = "",
    user: str = "",
    key: str = "",
    plan: bool = False,
    reason: str = "",
    set: list[str] | None = None,
) -> None:
    """Bring environment, programs and units of machines up to date, one by one, each proven."""
    from serving.fleet.cli.upgrade import upgrade as act
    from serving.fleet.cli.upgrade import upgrade_plan

    names = [name for name in hosts.split(",") if name]

    def made() -> list[str]:
        order = _upgrade_order(set or [], user, key)
        return upgrade_plan(order, names) if plan else act(order, names, reason)

    print_result({}, False, guarded(made))


def _upgrade_order(overrides: list[str], user: str, key: str) -> UpgradeOrder:
    """Of both configs, each with its own keys and those of the site."""
    from conf import compose
    from serving.fleet.bootstrap.wheelhouse import read_wheelhouse
    from serving.fleet.cli.bootstrap import setup
    from serving.fleet.cli.command import controls
    from serving.fleet.cli.upgrade_order import UpgradeOrder

    others = {"bootstrap": "rollout.", "rollout": "bootstrap."}
    configs = {
        primary: compose(primary, [text for text in overrides if not text.startswith(other)])
        for primary, other in others.items()
    }
    on, control = setup(configs["bootstrap"]), controls(configs["rollout"])
    wheels = read_wheelhouse(on.settings)
    return UpgradeOrder(on, control, wheels, user, key, progress_lines(False))


_HOST = {"host": "the host's name in conf/site", "set": "one key of conf/rollout.yaml"}


@task(iterable=["set"], help={**_HOST, "lines": "how many of the last lines; 100 when left out"})
def logs(_: Context, host: str, lines: int = 100, set: list[str] | None = None) -> None:
    """The last lines of the log of a host's Triton."""
    from serving.fleet.cli.host_care import host_log

    print_result({}, False, run_fleet(set, lambda on: host_log(on, host, lines)))


@task(iterable=["set"], help=_HOST)
def verify(_: Context, host: str, set: list[str] | None = None) -> None:
    """Have a host verify all it has now; exit 1 where anything is not as it was signed."""
    from invoke.exceptions import Exit

    from conf.errors import FAILED
    from serving.fleet.cli.host_care import verify_host

    faults = run_fleet(set, lambda on: verify_host(on, host))
    print_result({}, False, faults or [f"{host}: every file is as it was signed"])
    if faults:
        raise Exit(code=FAILED)


@task(iterable=["set"], help={**_HOST, "json": "print one JSON object, no lines"})
def exec_check(_: Context, host: str, json: bool = False, set: list[str] | None = None) -> None:
    """Have a host put a golden question to every version it serves; exit 1 at a wrong answer."""
    from invoke.exceptions import Exit

    from conf.errors import FAILED
    from serving.fleet.cli.host_care import check_execution

    checks = run_fleet(set, lambda on: check_execution(on, host))
    lines = [
        f"{host}: {one.model}/{one.version} "
        + (f"FAILED: {one.fault}" if one.fault else f"answered in {one.seconds * 1e3:.1f} ms")
        for one in checks
    ]
    print_result({"host": host, "checks": [asdict(one) for one in checks]}, json, lines)
    if any(one.fault for one in checks):
        raise Exit(code=FAILED)


@task(iterable=["set"], help=_HOST)
def gc(_: Context, host: str, set: list[str] | None = None) -> None:
    """Remove what ended commands left on a host."""
    from serving.fleet.cli.host_care import collect_garbage

    progress = progress_lines(False)
    print_result({}, False, [run_fleet(set, lambda on: collect_garbage(on, host, progress))])


def _lines(made: BootstrapReport, plan: bool) -> list[str]:
    count = len(made.changes)
    if not count:
        return [f"{made.host}: no change. {made.outcome}".rstrip()]
    counted = f"{count} change{'s' if count > 1 else ''}"
    if plan:
        return [*made.changes, f"{made.host}: {counted}; fab bootstrap {made.host} makes them"]
    return [f"{made.host}: {counted} in {made.seconds} s. {made.outcome}"]


def _run(overrides: list[str] | None, act: Any) -> Any:
    from serving.fleet.cli.bootstrap import setup

    def with_setup(config: Any) -> Any:
        on: HostSetup = setup(config)
        return act(on)

    return run_composed("bootstrap", overrides, with_setup)
