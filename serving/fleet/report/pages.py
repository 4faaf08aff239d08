"""The pages of a site's rollouts, in the folder `pages` of the journal."""

from __future__ import annotations

import time
from pathlib import Path

from serving.artifact.durable import replace_file
from serving.fleet.errors import FleetConfigError
from serving.fleet.report.measures import measures
from serving.fleet.report.page import rollout_page
from serving.fleet.report.prometheus import PrometheusClient
from serving.fleet.report.read_rollouts import rollout_records
from serving.fleet.report.rollout_record import RolloutRecord
from serving.fleet.report.upgrade_page import machine_times, upgrade_page
from serving.fleet.report.way_back import way_back
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.upgrades import UpgradeRecord, upgrade_records

PAGES = "pages"


def read_rollouts(journal: Journal, model: str | None = None) -> list[RolloutRecord]:
    """Every rollout of the journal (of `model` where given), oldest first. Raises OSError."""
    return rollout_records(journal.events(model), journal.read_ledger().entries)


def find_rollout(journal: Journal, rollout: str | None) -> RolloutRecord:
    """The rollout called `rollout`, the newest when None; a part of its name is enough.

    Raises FleetConfigError when there is none, or more than one, naming the nearest.
    """
    records = read_rollouts(journal)
    if not records:
        raise FleetConfigError("the journal has no rollout yet: fab deploy.")
    if rollout is None:
        return records[-1]
    found = [one for one in records if one.rollout == rollout]
    found = found or [one for one in records if rollout in one.rollout]
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.rollout for one in (found or records)[-3:])
    several = "is part of several rollouts" if found else "is no rollout of the journal"
    raise FleetConfigError(f"{rollout!r} {several}: {names}. Every one: fab history.")


def find_upgrade(journal: Journal, name: str | None) -> UpgradeRecord | None:
    """The upgrade called `name`, or the only one that it is a part of; None where it is none."""
    found = [one for one in upgrade_records(journal.events()) if name and name in one.upgrade]
    exact = [one for one in found if one.upgrade == name]
    found = exact or found
    return found[0] if len(found) == 1 else None


def write_upgrade_page(journal: Journal, record: UpgradeRecord, out: Path | None = None) -> Path:
    """Write the page of an upgrade, whole or not at all; returns its file. Raises OSError."""
    path = out or journal.folder / PAGES / f"{record.upgrade}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    machines = machine_times(journal.events(), record.upgrade)
    replace_file(path, upgrade_page(record, machines, time.time()))
    return path


def write_page(
    journal: Journal, record: RolloutRecord, prometheus: PrometheusClient, out: Path | None = None
) -> Path:
    """Write the page of `record`, whole or not at all; returns its file. Raises OSError."""
    path = out or journal.folder / PAGES / f"{record.rollout}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    back = way_back(record, journal.productions(record.model), journal.warm(record.model))
    page = rollout_page(record, measures(record, prometheus), back, time.time())
    replace_file(path, page)
    return path
