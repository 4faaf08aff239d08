"""Every recording rule and alert of a site, generated from one declaration.

Feature drift (PSI) is not among them: no part of the site counts observations by feature and bin
yet, and a rule over series that nobody makes is silent whatever happens.
"""

from __future__ import annotations

from typing import Any

from serving.observe.rules import alerts, slo
from serving.observe.rules.rule import Alert, Group
from serving.observe.settings import Settings


def declared(settings: Settings) -> tuple[Group, ...]:
    """Every group, as values."""
    return (
        slo.slo_rules(settings.slo),
        alerts.target_alerts(settings.alerts),
        alerts.fleet_alerts(settings.alerts),
        alerts.verification_alerts(settings.alerts),
        alerts.rollout_alerts(),
        alerts.training_alerts(settings.alerts),
        alerts.machine_alerts(settings.alerts),
    )


def groups(settings: Settings) -> list[dict[str, Any]]:
    """Every group in the shape that Prometheus reads."""
    return [
        {
            "name": group.name,
            "rules": [rule.as_yaml(settings.runbooks) for rule in group.rules],
        }
        for group in declared(settings)
    ]


def all_alerts(settings: Settings) -> list[Alert]:
    """Every alert; those with several windows are several."""
    return [rule for group in declared(settings) for rule in group.rules if isinstance(rule, Alert)]
