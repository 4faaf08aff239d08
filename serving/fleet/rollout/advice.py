"""The next command for a fleet whose last rollout has no end, and the version a rollback goes to.

One place, because the sentence that a person reads and the thing that the command then does must
agree: whoever types what status says must never be led forward to a version that was left.
"""

from __future__ import annotations

from collections.abc import Sequence

from serving.fleet.errors import FleetConfigError
from serving.fleet.rollout.journal import Unfinished
from serving.fleet.rollout.upgrades import OpenUpgrade


def next_command(found: Unfinished, production: int | None) -> str:
    """A sentence about an open rollout, with the commands that end it."""
    what = f"{found.action} {found.rollout} of {found.model}/{found.version}"
    if found.committed and found.action == "rollback":
        return (
            f"{what} is in the ledger, but its hosts were not all checked after it. Go on: "
            f"fab rollback --model {found.model} --version {found.version}"
        )
    if found.committed:
        return (
            f"{what} is in the ledger, but its clean-up did not end. Go on: "
            f"fab heal --model {found.model}"
        )
    if found.action == "rollback":
        return (
            f"{what} did not end. Go on: "
            f"fab rollback --model {found.model} --version {found.version}"
        )
    if found.action == "heal":
        return f"{what} did not end. Go on: fab heal --model {found.model}"
    onward = f"fab deploy --model {found.model} --version {found.version}"
    if production is None or production == found.version:
        return f"{what} did not end. Go on: {onward}"
    return (
        f"{what} did not end. Back to {found.model}/{production}: fab rollback --model "
        f"{found.model} --version {production}. Or go on: {onward}"
    )


def upgrade_command(found: OpenUpgrade) -> str:
    """A sentence about an upgrade without a good end, with the command that goes on with it."""
    left = [f"{host} was left half-way" for host in found.left] or ["nothing was left half-way"]
    rest = ",".join(dict.fromkeys([*found.left, *found.record.rest]))
    return (
        f"upgrade {found.record.upgrade} did not end, {' and '.join(left)}. Go on: fab upgrade"
        f"{f' --hosts {rest}' if rest else ''}"
    )


def version_back(
    model: str, stack: Sequence[int], found: Unfinished | None, named: int | None
) -> int:
    """The version that `fab rollback` goes to; `stack` are the versions in production.

    An open rollback is continued; an unfinished deployment is left for production itself. Raises
    FleetConfigError when there is nothing to go back to, or `named` lies ahead.
    """
    if named is not None:
        if stack and named > stack[-1]:
            raise FleetConfigError(
                f"{model}/{named} is newer than {model}/{stack[-1]} in production: that is a "
                f"deployment. fab deploy --model {model} --version {named}."
            )
        return named
    if found and found.action == "rollback":
        return found.version
    if found and not found.committed and stack and found.version != stack[-1]:
        return stack[-1]
    if len(stack) < 2:
        raise FleetConfigError(
            f"{model} has no earlier production version in the ledger to go back to"
            f"{f' from {model}/{stack[-1]}' if stack else ''}. Name one: --version N."
        )
    return stack[-2]
