"""`fab lock` and `fab unlock`: a person keeps every controller out of the fleet, and lets it in."""

from __future__ import annotations

from collections.abc import Callable

from serving.fleet.cli.command import Controls
from serving.fleet.errors import FleetConfigError, denied
from serving.fleet.rollout.lease import lock_fleet, unlock_fleet


def lock(on: Controls, reason: str, waiting: Callable[[str], None]) -> str:
    """Lock the fleet; returns a sentence for people.

    Raises Locked while a controller is at work, FleetConfigError without a reason.
    """
    _require(reason, "lock")
    try:
        taken = lock_fleet(on.journal, reason, on.config.lock_ttl_s, waiting)
    except PermissionError as error:
        raise denied("cannot write the journal", on.journal.folder, error) from error
    return f"the fleet is locked by {taken.who}. To lift the lock: fab unlock --reason '...'"


def unlock(on: Controls, reason: str, force: bool) -> str:
    """Unlock the fleet, with `force` also from a controller; returns a sentence for people.

    Raises Locked for a controller without `force`, FleetConfigError without a reason.
    """
    _require(reason, "unlock")
    try:
        was = unlock_fleet(on.journal, reason, force, on.config.lock_ttl_s)
    except PermissionError as error:
        raise denied("cannot write the journal", on.journal.folder, error) from error
    if was is None:
        return "the fleet was not locked."
    if was.reason:
        return f"the fleet is unlocked; {was.who} had locked it."
    return (
        f"the fleet is unlocked; {was.who} ({was.what}) stops before its next step. fab status has "
        "what it left."
    )


def _require(reason: str, command: str) -> None:
    if not reason.strip():
        raise FleetConfigError(
            f"the next person reads the reason in the journal. Type: fab {command} --reason 'why'"
        )
