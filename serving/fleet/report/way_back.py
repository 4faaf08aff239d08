"""Sentences about a rollout as a whole: its end, and the effect of a rollback now. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conf.page import utc
from serving.fleet.errors import FleetConfigError
from serving.fleet.report.read_rollouts import seconds_of
from serving.fleet.report.rollout_record import CONTINUED, OPEN, RolloutRecord
from serving.fleet.rollout.advice import version_back
from serving.fleet.rollout.journal import history
from serving.fleet.rollout.records import LedgerEntry
from serving.fleet.routing import VersionCounters


def title_sentence(record: RolloutRecord, traffic: VersionCounters | None) -> str:
    """The end of a rollout and its price in one sentence, without a full stop."""
    what = f"{record.model}/{record.version}"
    before = f"{record.model}/{record.previous}" if record.previous else "nothing"
    again = " again" if record.action in ("rollback", "heal") else ""
    if record.outcome == "done":
        end = f"{what} is in production{again}"
    elif record.outcome == "rolled-back":
        end = f"{what} failed, and {before} serves as before"
    elif record.outcome == "refused":
        end = f"{what} was refused, and {before} serves as before"
    elif record.outcome == "prepared":
        end = f"{what} is loaded on the hosts, and {before} serves as before"
    elif record.outcome == OPEN:
        end = f"The {record.action} of {what} has no end in the journal"
    elif record.outcome == CONTINUED:
        end = f"The {record.action} of {what} was cut off, and {record.continued_by} went on"
    elif record.commit is not None or record.action == "heal":
        end = f"{what} is in production{again}, but not on every host"
    else:
        end = f"{what} failed, and not every host could be brought back"
    if traffic is None:
        return end
    return f"{end}: {traffic.errors:,} of {traffic.requests:,} requests failed"


def total_traffic(record: RolloutRecord) -> VersionCounters | None:
    """Requests and failures of all versions while the rollout went on; None where not recorded."""
    found = record.traffic()
    if found is None:
        return None
    return VersionCounters(
        sum(one.requests for one in found.values()), sum(one.errors for one in found.values())
    )


def way_back(
    record: RolloutRecord, ledger: Sequence[LedgerEntry], warm: Mapping[str, tuple[int, ...]]
) -> str:
    """The effect of `fab rollback` as the ledger stands now; `ledger` is the model's part of it,
    `warm` the versions that were proven last on each host."""
    model = record.model
    stack = history(ledger)
    if record.outcome == OPEN:
        return "fab status names the command that goes on with it, and the one that goes back."
    if not stack:
        return f"Nothing of {model} is in production: there is nothing to go back to."
    try:
        now, target = stack[-1], version_back(model, stack, None, None)
    except FleetConfigError as error:
        return str(error)
    since = next(one.at for one in reversed(ledger) if one.version == target)
    sentence = (
        f"fab rollback --model {model} goes from {model}/{now} to {model}/{target}, which came "
        f"into production at {utc(seconds_of(since))}"
    )
    proven = sum(target in versions for versions in warm.values())
    if not proven:
        return f"{sentence}, host by host: it is not known to be loaded anywhere."
    return (
        f"{sentence}. It is loaded and proven on {proven} of {len(warm)} hosts: there one change "
        "of each edge's map brings it back."
    )
