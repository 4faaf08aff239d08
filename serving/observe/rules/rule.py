"""A rule: a recorded series or an alert, and how each is written for Prometheus."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["page", "ticket", "none"]

JOB_OF = {
    "lockgate_train_": "train",
    "lockgate_slurm_": "slurm",
    "lockgate_host_": "host",
    "lockgate_": "lockgate",
    "haproxy_": "haproxy",
    "node_": "node",
    "prometheus_": "prometheus",
    "alertmanager_": "alertmanager",
}
"""Prefix of a metric -> the one Prometheus job that it is believed from; the first that fits."""

_SELECTOR = re.compile(rf"\b({'|'.join(JOB_OF)})(\w+)(\{{)?")


def of_its_job(expr: str) -> str:
    """`expr` with `job="..."` in the selector of every metric.

    A target chooses the names of its metrics, and never its `job`: so no training job, and no model
    behind a Triton, can raise or silence an alert about something else by a metric of its name.
    """
    return _SELECTOR.sub(
        lambda found: (
            f'{found[1]}{found[2]}{{job="{JOB_OF[found[1]]}"' + ("," if found[3] else "}")
        ),
        expr,
    )


@dataclass(frozen=True)
class Record:
    """A recorded series, named `level:metric:operation`."""

    name: str
    expr: str

    def as_yaml(self, runbooks: str) -> dict[str, Any]:
        """In the shape that Prometheus reads."""
        return {"record": self.name, "expr": of_its_job(self.expr.strip())}


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
        rule: dict[str, Any] = {"alert": self.name, "expr": of_its_job(self.expr.strip())}
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
