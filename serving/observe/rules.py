"""Every recording rule and alert of a site, generated from one declaration."""

from __future__ import annotations

from typing import Any

from serving.observe.settings import Settings


def groups(settings: Settings) -> list[dict[str, Any]]:
    """The rule groups in the shape that Prometheus reads."""
    return [
        {
            "name": "targets",
            "rules": [
                {
                    "alert": "TargetDown",
                    "expr": "up == 0",
                    "for": "5m",
                    "labels": {"severity": "ticket"},
                    "annotations": {"summary": "{{ $labels.job }} {{ $labels.instance }} is down"},
                }
            ],
        }
    ]
