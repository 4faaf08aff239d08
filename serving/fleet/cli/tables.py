"""`fab plan` as a table for a terminal, and the tables of the others."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from serving.fleet.rollout.rollout_plan import RolloutPlan

WRAPPED = ("reason", "drift", "why", "edges", "p99")
"""Columns of sentences."""


def plan_title(made: RolloutPlan) -> list[str]:
    """The lines above a plan: its version, and the rollout that it continues."""
    shipment = made.shipment
    lines = [f"{shipment} ({shipment.digest[:12]}, {shipment.size / (1 << 20):.1f} MiB)"]
    if made.resumes:
        lines.append(f"continues rollout {made.resumes}, which did not end")
    return lines


def wave_name(number: int) -> str:
    """The name of the wave at place `number` of a plan."""
    return "canary" if number == 0 else f"wave {number}"


def plan_table(made: RolloutPlan) -> Table:
    """A row for each host: its wave, and the reason for a change or for none."""
    table = plain_table(made.shipment.model, ("wave", "host", "serves", "shall serve", "reason"))
    table.title = "\n".join(plan_title(made))
    for number, wave in enumerate(made.waves):
        for change in wave:
            before, after = _versions(change.before.served), _versions(change.versions)
            table.add_row(wave_name(number), change.host.name, before, after, Text(change.reason))
    for host, reason in made.unchanged:
        table.add_row("-", host.name, "", "", Text(f"no change: {reason}"), style="dim")
    return table


def plain_table(title: str, columns: tuple[str, ...]) -> Table:
    """A table without lines; columns of sentences may wrap."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for name in columns:
        table.add_column(name, no_wrap=name not in WRAPPED)
    return table


def _versions(versions: tuple[int, ...]) -> str:
    return " ".join(str(version) for version in versions) or "-"


def plan_text(made: RolloutPlan) -> list[str]:
    lines = plan_title(made)
    for number, wave in enumerate(made.waves):
        name = wave_name(number)
        lines += [f"{name:<8} {change.host.name:<10} {change.reason}" for change in wave]
    lines += [f"{'-':<8} {host.name:<10} no change: {reason}" for host, reason in made.unchanged]
    return lines


def plan_json(made: RolloutPlan) -> dict[str, Any]:
    return {
        "model": made.shipment.model,
        "version": made.shipment.version,
        "digest": made.shipment.digest,
        "resumes": made.resumes,
        "waves": [
            [
                {"host": c.host.name, "region": c.host.region, "serves": list(c.before.served),
                 "shall_serve": list(c.versions), "reason": c.reason}
                for c in wave
            ]
            for wave in made.waves
        ],
        "unchanged": {host.name: reason for host, reason in made.unchanged},
    }  # fmt: skip
