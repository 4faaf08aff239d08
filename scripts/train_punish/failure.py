"""The punisher's own error."""

from __future__ import annotations

from conf.errors import MISTAKE, LockgateError


class PunisherRefused(LockgateError):
    """The punisher cannot begin; the message has the reason and what to type."""

    exit_code = MISTAKE


class PunisherFailed(LockgateError):
    """A command that the punisher needs went wrong, so that nothing was measured."""
