"""The routing of one model at one edge: the version that a request without one is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Routing:
    """Versions for requests that name none.

    `version` None: the edge leaves them as they are, and each host answers with its highest ready
    version. `percent` of them go to `canary` where there is one. Of `shadow_percent` a copy goes to
    `shadow`, and its answer to nobody.
    """

    version: int | None = None
    canary: int | None = None
    percent: float = 0.0
    shadow: int | None = None
    shadow_percent: float = 0.0

    def __post_init__(self) -> None:
        for percent in (self.percent, self.shadow_percent):
            if not 0 <= percent <= 100:
                raise ValueError(f"percent is {percent:g}: 0 to 100")
        if self.canary is None and self.percent:
            raise ValueError("a share without a canary")
        if self.shadow is None and self.shadow_percent:
            raise ValueError("a share without a shadow")
        if self.shadow is not None and self.shadow in (self.version, self.canary):
            raise ValueError(f"version {self.shadow} takes traffic: it cannot be a shadow too")

    def as_json(self) -> dict[str, Any]:
        """For the journal."""
        made = {"version": self.version, "canary": self.canary, "percent": self.percent}
        if self.shadow is not None:
            made |= {"shadow": self.shadow, "shadow_percent": self.shadow_percent}
        return made

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Routing:
        """From the journal. Raises KeyError, TypeError or ValueError."""
        numbers = (content["version"], content["canary"], content.get("shadow"))
        for number in numbers:
            if number is not None and (type(number) is not int or number < 1):
                raise ValueError(f"{number!r} is not a version's number")
        version, canary, shadow = numbers
        shadow_percent = float(content.get("shadow_percent", 0.0))
        return cls(version, canary, float(content["percent"]), shadow, shadow_percent)


@dataclass(frozen=True)
class VersionCounters:
    """Requests that an edge gave to one version since HAProxy started, and the failed ones (5xx)
    of them; the client's own mistakes are in neither."""

    requests: int
    errors: int

    def since(self, before: VersionCounters) -> VersionCounters:
        """The counts after `before`; all of them where HAProxy was restarted meanwhile."""
        if self.requests < before.requests:
            return self
        return VersionCounters(self.requests - before.requests, self.errors - before.errors)
