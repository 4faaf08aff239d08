"""`fab status` for people: tables on a terminal, lines elsewhere."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from conf.names import printable
from conf.page import duration
from serving.fleet.cli.host_status import Row
from serving.fleet.cli.model_status import ModelStatus, VersionTraffic
from serving.fleet.cli.status import RunningRollout, Status
from serving.fleet.cli.tables import plain_table
from serving.fleet.report.text import ago
from serving.fleet.rollout.instances import instances_text

_QUIET_S = 3.0
"""A controller shows that it lives each second."""
NOTHING = "nothing was deployed yet: fab deploy"


def status_lines(found: Status) -> list[str]:
    """A line for each model, edge, version and host, then remarks (with `!`) and notes."""
    lines: list[str] = []
    for one in found.models:
        lines.append(_model_line(one))
        lines += [f"  edge {edge.edge:<14} {edge.text}" for edge in one.routing]
        lines += [f"  {_traffic(one, version)}" for version in one.traffic]
    lines += [
        f"{row.host:<10} {row.region:<9} {row.model:<10} "
        f"{' '.join(str(v) for v in row.serving) or '-':<8} answers {row.answers or '-':<3} "
        f"{row.digest[:12] or '-':<12} {row.edge:<5} verified {_verified(row)}"
        + "".join(f"\n{'':<10} ! {sentence}" for sentence in row.drift)
        + "".join(f"\n{'':<10} ~ {sentence}" for sentence in row.passing)
        for row in found.rows
    ]
    lines += _at_work(found)
    lines += [f"! {remark}" for remark in found.remarks]
    lines += list(found.notes)
    return lines or [NOTHING]


def status_tables(found: Status) -> RenderableType:
    """The models, the hosts, and below them the rollouts at work, remarks and notes."""
    parts: list[RenderableType] = []
    if found.models:
        parts.append(_models_table(found.models))
    if found.rows:
        parts.append(_hosts_table(found.rows))
    below = Text()
    for lines, style in (
        (_at_work(found), "cyan"),
        (found.remarks, "red"), (found.notes, "default"),
    ):  # fmt: skip
        for line in lines:
            below.append(f"{printable(line)}\n", style)
    if below:
        below.rstrip()
        parts.append(below)
    return Group(*parts) if parts else Text(NOTHING)


def running_line(one: RunningRollout) -> str:
    """A sentence about a rollout that is going on, its owner and its newest step."""
    step = f", now at {one.step}" if one.step else ""
    why = f" ({one.reason})" if one.reason else ""
    quiet = f", without a sign of life for {one.quiet_s:.0f} s" if one.quiet_s > _QUIET_S else ""
    return (
        f"{one.action} of {one.model}/{one.version} is going on: by {one.who}, for "
        f"{duration(one.age_s)}{step}{why}{quiet}. Follow it: fab watch --model {one.model}"
    )


def _at_work(found: Status) -> list[str]:
    """A sentence about each rollout and upgrade that is going on."""
    upgrades = [str(found.upgrading)] if found.upgrading else []
    return [*(running_line(one) for one in found.running), *upgrades]


def _models_table(models: tuple[ModelStatus, ...]) -> RenderableType:
    table = plain_table("models", ("model", "for", "by", "edges", "requests, failed", "p99"))
    for one in models:
        edges = "\n".join(f"{edge.edge}: {edge.text}" for edge in one.routing) or "-"
        traffic = "\n".join(_traffic(one, version) for version in one.traffic) or "-"
        age = duration(one.age_s) if one.age_s is not None else "never"
        cells = (f"{one.model}/{one.production or '-'}", age, one.who or "-", edges, traffic,
                 _p99(one))  # fmt: skip
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _hosts_table(rows: tuple[Row, ...]) -> RenderableType:
    columns = ("host", "region", "model", "ready", "answers", "digest", "edge", "verified", "drift")
    table = plain_table("fleet", columns)
    for row in rows:
        cells = (
            row.host, row.region, row.model, " ".join(map(str, row.serving)) or "-",
            str(row.answers or "-"), row.digest[:12] or "-", row.edge, _verified(row),
        )  # fmt: skip
        drift = Text(printable("\n".join(row.drift)), "red")
        if row.passing:
            drift.append(printable("\n".join(row.passing)), "dim")
        table.add_row(*(Text(printable(cell)) for cell in cells), drift)
    return table


def _model_line(one: ModelStatus) -> str:
    if one.age_s is None:
        return f"{one.model}: nothing is in production; p99 {_p99(one)}"
    return (
        f"{one.model}/{one.production} in production for {duration(one.age_s)}, by {one.who}; "
        f"{_instances(one)}p99 {_p99(one)}"
    )


def _instances(one: ModelStatus) -> str:
    if one.instances is None:
        return ""
    return f"{instances_text(one.instances, one.model)} on a host; "


def _traffic(model: ModelStatus, one: VersionTraffic) -> str:
    rate = "-" if one.error_rate is None else f"{100 * one.error_rate:.3g}%"
    since = f"since {model.traffic_since}" if model.traffic_since else "since the edges started"
    return (
        f"{model.model}/{one.version}: {one.requests:,} requests, {one.errors:,} failed ({rate}) "
        f"{since}"
    )


def _p99(one: ModelStatus) -> str:
    return f"- ({one.p99_missing})" if one.p99_s is None else f"{1e3 * one.p99_s:.0f} ms"


def _verified(row: Row) -> str:
    return "never" if row.verified_age_s is None else ago(row.verified_age_s)
