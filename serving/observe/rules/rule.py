"""A rule: a recorded series or an alert, and how each is written for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["page", "ticket", "none"]


@dataclass(frozen=True)
class Record:
    """A recorded series, named `level:metric:operation`."""

    name: str
    expr: str

    def as_yaml(self, runbooks: str) -> dict[str, Any]:
        """In the shape that Prometheus reads."""
        return {"record": self.name, "expr": self.expr.strip()}


@dataclass(frozen=True)
class Alert:
    """An alert. Severity: page wakes somebody, ticket waits for the morning, none only inhibits.

    `summary` is one sentence with Prometheus' templates. The runbook is the section of docs/sre.md
    whose heading is the alert's name. `area` marks the tickets that a rollout holds back.
    """

    name: str
    expr: str
    severity: Severity
    summary: str
    hold: str = ""
    """The time that the expression must hold before the alert fires, such as `5m`."""
    keep: str = ""
    """The time that the alert stays after the expression ended, so that it does not flap."""
    labels: Mapping[str, str] = field(default_factory=dict)

    def as_yaml(self, runbooks: str) -> dict[str, Any]:
        """In the shape that Prometheus reads."""
        rule: dict[str, Any] = {"alert": self.name, "expr": self.expr.strip()}
        if self.hold:
            rule["for"] = self.hold
        if self.keep:
            rule["keep_firing_for"] = self.keep
        rule["labels"] = {"severity": self.severity, **self.labels}
        rule["annotations"] = {
            "summary": self.summary,
            "runbook": f"{runbooks}#{self.name.lower()}",
        }
        return rule


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated together, in order."""

    name: str
    rules: Sequence[Record | Alert]
