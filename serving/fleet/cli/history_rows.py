"""The rows of `fab history`: rollouts, upgrades of hosts, and orders, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.page import utc
from serving.artifact import store
from serving.artifact.manifest import ManifestError
from serving.artifact.store import StoreError
from serving.fleet.report.read_rollouts import seconds_of
from serving.fleet.report.rollout_record import RolloutRecord
from serving.fleet.report.way_back import total_traffic
from serving.fleet.rollout.records import OF_ONE_HOST, JournalEvent
from serving.fleet.rollout.upgrades import UpgradeRecord, upgrade_records

UPGRADE = "upgrade"
ORDERED = "ordered"
"""The outcome of an order: it is done when it is journalled, or its command failed."""


@dataclass(frozen=True)
class HistoryRow:
    """One rollout, one upgrade of hosts, or an order: to one host, or of instances of a model.

    `at` is its start in UTC, `age_s` the seconds since then. An upgrade and an order to a host have
    `hosts`, and neither model nor version. `continued_by` is the rollout that went on from this
    one, empty where it ended of itself. `run` and `source` are the run that trained the version and
    the digest of its code, empty where the store has the version no more. `requests` and `failed`
    are None where nothing counted them. `digests` are the first letters of what each host of an
    upgrade ran before and after: of its environment, or of an edge's config.
    """

    rollout: str
    at: str
    age_s: float
    who: str
    action: str
    reason: str
    outcome: str
    model: str = ""
    version: int | None = None
    previous: int | None = None
    outcome_reason: str = ""
    continued_by: str = ""
    seconds: float = 0.0
    run: str = ""
    source: str = ""
    requests: int | None = None
    failed: int | None = None
    hosts: tuple[str, ...] = ()
    digests: tuple[tuple[str, str], ...] = ()


def history_rows(
    folder: Path,
    rollouts: Sequence[RolloutRecord],
    events: Sequence[JournalEvent],
    count: int,
    now: float,
) -> list[HistoryRow]:
    """The newest `count`, newest first. `folder` is the store, `events` are the whole journal."""
    rows = [
        *((record.began, _rollout_row(folder, record, now)) for record in rollouts),
        *((seconds_of(one.at), _order_row(one, now)) for one in events if _is_order(one)),
        *((record.began, _upgrade_row(record, now)) for record in upgrade_records(events)),
    ]
    newest = sorted(rows, key=lambda pair: pair[0], reverse=True)
    return [row for _, row in newest[:count]]


def _rollout_row(folder: Path, record: RolloutRecord, now: float) -> HistoryRow:
    traffic = total_traffic(record)
    run, source = _origin(folder, record.model, record.version)
    return HistoryRow(
        rollout=record.rollout,
        at=utc(record.began),
        age_s=_age_s(record.began, now),
        who=record.who,
        action=record.action,
        reason=record.reason,
        outcome=record.outcome,
        model=record.model,
        version=record.version,
        previous=record.previous,
        outcome_reason=record.outcome_reason,
        continued_by=record.continued_by,
        seconds=round(record.seconds, 2),
        run=run,
        source=source,
        requests=traffic.requests if traffic else None,
        failed=traffic.errors if traffic else None,
    )


def _is_order(event: JournalEvent) -> bool:
    """True for a step of no rollout: a person's word about a host, or `fab scale`."""
    return event.event == "scaled" or (event.event in OF_ONE_HOST and event.model is None)


def _order_row(order: JournalEvent, now: float) -> HistoryRow:
    began = seconds_of(order.at)
    reason = str(order.content.get("reason", ""))
    if order.event == "scaled":
        count = order.content["instances"]
        given = "as many instances as packaged" if count is None else f"{count} instances"
        reason = f"{given}: {reason}".rstrip(": ")
    return HistoryRow(
        rollout=order.rollout,
        at=utc(began),
        age_s=_age_s(began, now),
        who=order.who,
        action=order.event,
        reason=reason,
        outcome=ORDERED,
        model=order.model or "",
        version=order.version,
        hosts=(order.host,) if order.host else (),
    )


def _upgrade_row(record: UpgradeRecord, now: float) -> HistoryRow:
    return HistoryRow(
        rollout=record.upgrade,
        at=utc(record.began),
        age_s=_age_s(record.began, now),
        who=record.who,
        action=UPGRADE,
        reason=record.reason,
        outcome=record.outcome,
        outcome_reason=record.detail,
        seconds=round(record.seconds, 2),
        hosts=record.hosts,
        digests=record.digests,
    )


def _age_s(began: float, now: float) -> float:
    return max(round(now - began, 1), 0.0)


def _origin(folder: Path, model: str, version: int) -> tuple[str, str]:
    """The run and the digest of the code that a version was made by."""
    try:
        lineage = store.get(folder, model, version).manifest.lineage
    except (StoreError, ManifestError, OSError):
        return "", ""
    return lineage.run, lineage.source_digest
