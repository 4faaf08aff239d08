"""An upgrade in `fab status`: the one that is going on, and the one that has no end."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from conf.page import duration
from serving.fleet.cli.holder_watch import HolderWatch
from serving.fleet.cli.host_status import Row
from serving.fleet.rollout.advice import upgrade_command
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.upgrades import OPEN, open_upgrade


@dataclass(frozen=True)
class RunningUpgrade:
    """An upgrade that a living controller is at work on: of `hosts`, `finished` have it, and it is
    at `host`, "" between two."""

    upgrade: str
    who: str
    reason: str
    since: float
    age_s: float
    hosts: tuple[str, ...]
    finished: tuple[str, ...]
    host: str

    def __str__(self) -> str:
        at = f", now at {self.host}" if self.host else ""
        why = f" ({self.reason})" if self.reason else ""
        return (
            f"upgrade of {', '.join(self.hosts)} is going on: by {self.who}, for "
            f"{duration(self.age_s)}, {len(self.finished)} of {len(self.hosts)} done{at}{why}"
        )


def upgrade_now(journal: Journal, watch: HolderWatch) -> RunningUpgrade | str:
    """The upgrade that is going on; else a sentence about one without a good end, "" for none."""
    found, holder = open_upgrade(journal.events()), watch.holder()
    if found is None:
        return ""
    one = found.record
    if one.outcome == OPEN and holder is not None and one.upgrade in holder.what.split():
        age_s = max(round(time.time() - one.began, 1), 0.0)
        return RunningUpgrade(
            one.upgrade, one.who, one.reason, one.began, age_s, one.hosts, one.finished, one.host
        )
    return upgrade_command(found)


def with_upgrade(row: Row, going: RunningUpgrade | None) -> Row:
    """`row`, whose differences are no drift where an upgrade is at work on its host."""
    if going is None or row.host != going.host:
        return row
    return replace(row, drift=(), passing=(*row.passing, *row.drift))
