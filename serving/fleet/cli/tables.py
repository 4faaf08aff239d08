"""`fab plan` and `fab status` as tables for a terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from conf.names import printable
from serving.fleet.cli.status import Status
from serving.fleet.rollout.rollout_plan import RolloutPlan


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


def status_table(found: Status) -> Table:
    """A row for each model on each host, and one below it for each drift; remarks at the end."""
    columns = ("host", "region", "model", "ready", "answers", "digest", "edge", "drift")
    table = plain_table("fleet", columns)
    for row in found.rows:
        cells = (
            row.host, row.region, row.model, _versions(row.serving), str(row.answers or "-"),
            row.digest[:12] or "-", row.edge,
        )  # fmt: skip
        drift = Text(printable("\n".join(row.drift)), "red")
        table.add_row(*(Text(printable(cell)) for cell in cells), drift)
    if found.remarks or found.notes:
        below = Text(printable("\n".join(found.remarks)), "red")
        below.append("\n" if found.remarks and found.notes else "")
        below.append(printable("\n".join(found.notes)), "default")
        table.caption, table.caption_justify = below, "left"
    return table


def plain_table(title: str, columns: tuple[str, ...]) -> Table:
    """A table without lines; columns of sentences may wrap."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for name in columns:
        table.add_column(name, no_wrap=name not in ("reason", "drift", "why"))
    return table


def _versions(versions: tuple[int, ...]) -> str:
    return " ".join(str(version) for version in versions) or "-"
