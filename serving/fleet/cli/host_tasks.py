"""The tasks of `fab -l` that set up hosts: parse, call one function, print."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from invoke import Context, task

from serving.fleet.cli.tasks import _print, _progress, run_composed

if TYPE_CHECKING:
    from serving.fleet.cli.bootstrap import BootstrapReport, HostSetup

__all__ = ["bootstrap", "pin", "wheelhouse"]

_SET = "one key of conf/bootstrap.yaml, as in --set bootstrap.memory_max=24G; may be repeated"


@task(iterable=["set"], help={"set": _SET})
def wheelhouse(_: Context, set: list[str] | None = None) -> None:
    """Get everything that hosts install onto this machine; hosts then need no internet."""
    from serving.fleet.cli.bootstrap import wheelhouse as act

    made = _run(set, act)
    size = f"{made.wheels} packages, {made.size >> 20} MiB"
    _print({}, False, [f"{size}, are in {made.folder}. Type: fab bootstrap HOST"])


@task(
    iterable=["set"],
    help={
        "host": "the host's name in conf/site",
        "fingerprint": "of its ed25519 key, read on its own console: SHA256:...",
        "set": _SET,
    },
)
def pin(_: Context, host: str, fingerprint: str = "", set: list[str] | None = None) -> None:
    """Trust a new host's key, which must have the fingerprint that its console shows."""
    from serving.fleet.cli.bootstrap import pin as act

    _print({}, False, [_run(set, lambda on: act(on, host, fingerprint))])


@task(
    iterable=["set"],
    help={
        "host": "the host's name in conf/site",
        "user": "root, or an account there with sudo without a password",
        "key": "the SSH key of that account",
        "plan": "only show what differs",
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
    restart: bool = False,
    set: list[str] | None = None,
    json: bool = False,
) -> None:
    """Make a bare host a serving host, or mend one; done twice it changes nothing."""
    from serving.fleet.cli.bootstrap import bootstrap as act

    progress = _progress(json)

    def report(step: str, detail: str) -> None:
        progress(host, step, detail)

    made = _run(set, lambda on: act(on, host, user, key, plan, restart, report))
    _print(asdict(made), json, _lines(made, plan))


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
