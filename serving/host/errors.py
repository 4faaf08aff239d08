"""The refusals of a host: a name that a controller can act on, and a sentence for people."""

from __future__ import annotations

from conf.errors import LockgateError


class HostRefusal(LockgateError):
    """The host does not do this; `reason` is a short name, the text one sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
