"""The routing of one model at one edge: the version that a request without one is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Routing:
    """Versions for requests that name none.

    `version` None: the edge leaves them as they are, and each host answers with its highest ready
    version. `percent` of them go to `canary` where there is one.
    """

    version: int | None = None
    canary: int | None = None
    percent: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError(f"percent is {self.percent:g}: 0 to 100")
        if self.canary is None and self.percent:
            raise ValueError("a share without a canary")

    def as_json(self) -> dict[str, Any]:
        """For the journal."""
        return {"version": self.version, "canary": self.canary, "percent": self.percent}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Routing:
        """From the journal. Raises KeyError, TypeError or ValueError."""
        numbers = (content["version"], content["canary"])
        for number in numbers:
            if number is not None and (type(number) is not int or number < 1):
                raise ValueError(f"{number!r} is not a version's number")
        return cls(*numbers, float(content["percent"]))


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
