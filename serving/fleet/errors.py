"""The errors of the fleet, by how a command ends: see `conf.errors` for the exit codes."""

from __future__ import annotations

from pathlib import Path

from conf.errors import MISTAKE, REFUSED, UNREACHABLE, LockgateError


class FleetError(LockgateError, ValueError):
    """The fleet cannot do this; the message has the place, the reason and the next command."""


class FleetConfigError(FleetError):
    """A key of the fleet's config or an option of `fab` is wrong; nothing was changed."""

    exit_code = MISTAKE


class FleetRefusal(FleetError):
    """A check refused a package or a change; nothing was changed."""

    exit_code = REFUSED


class Unreachable(FleetError):
    """A host or an edge does not answer, or not as the one that is pinned."""

    exit_code = UNREACHABLE


class StuckVersion(FleetError):
    """A version stays between two states: only a restart of its Triton, drained, ends that."""


def denied(what: str, path: Path, error: OSError) -> FleetConfigError:
    """The error for a file of the site that this OS user cannot use."""
    return FleetConfigError(
        f"{what} {path}: {(error.strerror or 'not possible').lower()}. Run fab as the deploy "
        "identity: scripts/site as deploy fab ..."
    )
