"""`fab rollback` without a version, on a terminal: the earlier ones in a list, Enter for the first.

Anything else than a terminal gets no question: the version before is meant.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from conf.names import printable, shown
from serving.fleet.cli.command import Controls, only_model
from serving.fleet.errors import FleetConfigError
from serving.fleet.report.read_rollouts import seconds_of
from serving.fleet.report.text import ago
from serving.fleet.rollout.journal import history
from serving.fleet.rollout.records import LedgerEntry

_OFFERED = 9


@dataclass(frozen=True)
class EarlierVersion:
    """A version that was in production: `since` then, in seconds since the epoch, put there by
    `who`, and proven warm on `warm` hosts."""

    version: int
    since: float
    who: str
    warm: int


def earlier_versions(
    ledger: Sequence[LedgerEntry], warm: Mapping[str, tuple[int, ...]]
) -> list[EarlierVersion]:
    """The versions behind production in a model's part of the ledger, the nearest first."""
    newest = {entry.version: entry for entry in ledger}
    return [
        EarlierVersion(
            version, seconds_of(newest[version].at), newest[version].who,
            sum(version in versions for versions in warm.values()),
        )
        for version in reversed(history(ledger)[:-1])
    ][:_OFFERED]  # fmt: skip


def offer_lines(
    model: str, current: int, offered: Sequence[EarlierVersion], now: float
) -> list[str]:
    """The list that a person chooses from."""
    lines = [f"{model}/{current} is in production. Back to:"]
    for number, one in enumerate(offered, start=1):
        where = f"warm on {one.warm} hosts" if one.warm else "not known to be loaded"
        lines.append(
            f"  {number}  {f'{model}/{one.version}':<14} came into production "
            f"{ago(now - one.since)}, by {one.who}; {where}"
        )
    return lines


def chosen_version(answer: str, offered: Sequence[EarlierVersion]) -> int | None:
    """The version of an answer: a number of the list, nothing for the first; else None."""
    text = answer.strip()
    if not text:
        return offered[0].version
    if re.fullmatch(r"[1-9]", text) and int(text) <= len(offered):
        return offered[int(text) - 1].version
    return None


def at_terminal() -> bool:
    """True when a person can be asked and can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def picked_version(
    on: Controls, model: str | None, read: Callable[[str], str] = input
) -> int | None:
    """The version that the person at the terminal chose; None to leave it to `fab rollback`.

    None without a terminal, for an open rollout (whose end is no choice), and where there is
    nothing behind production. Raises FleetConfigError for an answer that is none of the list.
    """
    if not at_terminal():
        return None
    name = only_model(on.store, model, "rollback")
    ledger = on.journal.productions(name)
    offered = earlier_versions(ledger, on.journal.warm(name))
    if not offered or on.journal.open_rollout(name) is not None:
        return None
    current = history(ledger)[-1]
    print(printable("\n".join(offer_lines(name, current, offered, time.time()))))
    try:
        answer = read("Number [1], or Ctrl-C to leave everything as it is: ")
    except EOFError:
        answer = "nothing"
    version = chosen_version(answer, offered)
    if version is None:
        raise FleetConfigError(
            f"{shown(answer)} is no number of the list, and nothing was changed. Type: "
            f"fab rollback --model {name} --version {offered[0].version}"
        )
    return version
