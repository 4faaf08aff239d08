"""The tasks of `fab -l` that are orders: to a rollout, to one host, to the whole fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Context, task

from serving.fleet.cli.task_output import (
    print_result,
    progress_lines,
    run_fleet,
    version_number,
)

if TYPE_CHECKING:
    from serving.fleet.rollout.orders import OrderName

__all__ = [
    "abort", "approve", "drain", "lock", "pause", "promote", "quarantine", "restart", "resume",
    "revoke", "undrain", "unlock",
]  # fmt: skip

_SET = "one key of conf/rollout.yaml, as in --set rollout.strategy=restart; may be repeated"
_HOST = {"host": "its name", "reason": "for the journal and the next person", "set": _SET}
_ORDER = {"reason": "for the journal", "set": _SET}
_UNLOCK = {
    "reason": "for the next person",
    "force": "also a rollout's own lock: it stops before its next step",
    "set": _SET,
}
_REVOKE = {
    "model": "the model's name; may be left out while the store has only one",
    "version": "the version's number",
    "reason": "for the next person",
    "set": _SET,
}


@task(iterable=["set"], help=_REVOKE)
def revoke(
    _: Context,
    model: str | None = None,
    version: str | None = None,
    reason: str = "",
    set: list[str] | None = None,
) -> None:
    """Have every host refuse one version for good, whoever signed it."""
    from serving.fleet.cli.revoke import revoke as act

    number = version_number(version, "revoke")
    progress = progress_lines(False)
    print_result({}, False, [run_fleet(set, lambda on: act(on, model, number, reason, progress))])


@task(iterable=["set"], help=_ORDER)
def lock(_: Context, reason: str = "", set: list[str] | None = None) -> None:
    """Keep every rollout out of the fleet until fab unlock."""
    from serving.fleet.cli.lock import lock as act

    progress = progress_lines(False)

    def waiting(sentence: str) -> None:
        progress("fleet", "lock", sentence)

    print_result({}, False, [run_fleet(set, lambda on: act(on, reason, waiting))])


@task(iterable=["set"], help=_UNLOCK)
def unlock(_: Context, reason: str = "", force: bool = False, set: list[str] | None = None) -> None:
    """Lift the lock of fab lock; with --force also that of a rollout, which then stops."""
    from serving.fleet.cli.lock import unlock as act

    print_result({}, False, [run_fleet(set, lambda on: act(on, reason, force))])


@task(positional=["host"], iterable=["set"], help=_HOST)
def quarantine(_: Context, host: str = "", reason: str = "", set: list[str] | None = None) -> None:
    """Keep a host out of traffic and out of every rollout; needs no SSH to it."""
    _host_order("quarantine", host, reason, set)


@task(positional=["host"], iterable=["set"], help=_HOST)
def drain(_: Context, host: str = "", reason: str = "", set: list[str] | None = None) -> None:
    """Take a host out of traffic when it has finished what it had."""
    _host_order("drain", host, reason, set)


@task(positional=["host"], iterable=["set"], help=_HOST)
def undrain(_: Context, host: str = "", reason: str = "", set: list[str] | None = None) -> None:
    """Bring a host to what production is, prove it, and give it traffic again."""
    _host_order("undrain", host, reason, set)


@task(positional=["host"], iterable=["set"], help=_HOST)
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


def _host_order(command: str, host: str, reason: str, overrides: list[str] | None) -> None:
    from serving.fleet.cli.host_commands import order_host

    progress = progress_lines(False)
    done = run_fleet(overrides, lambda on: order_host(on, command, host, reason, progress))
    print_result({}, False, [done])


def _order(order: OrderName, reason: str, overrides: list[str] | None) -> None:
    from serving.fleet.cli.controls import order_rollout

    print_result({}, False, [run_fleet(overrides, lambda on: order_rollout(on, order, reason))])
