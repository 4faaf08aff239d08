"""`fab watch`: the rollout of another operator as it goes on, read from the journal alone."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from conf.errors import DONE, FAILED, INCOMPLETE
from conf.names import printable
from conf.page import duration
from serving.fleet.cli.command import Controls, model_name
from serving.fleet.cli.holder_watch import HolderWatch
from serving.fleet.cli.live import LiveView
from serving.fleet.report.journal_tail import JournalTail
from serving.fleet.report.pages import (
    find_rollout,
    find_upgrade,
    read_rollouts,
    write_page,
    write_upgrade_page,
)
from serving.fleet.report.prometheus import PrometheusClient
from serving.fleet.report.read_rollouts import event_text
from serving.fleet.report.rollout_record import CONTINUED, ENDS, OPEN, RolloutRecord
from serving.fleet.report.way_back import title_sentence, total_traffic
from serving.fleet.rollout.engine import Progress
from serving.fleet.rollout.journal import ROLLOUTS
from serving.fleet.rollout.records import JournalEvent

_POLL_S = 0.25
_QUIET = ("before", "parked", "proven", "counters", "locked", "unlocked")


def running_rollout(on: Controls, model: str | None) -> RolloutRecord | None:
    """The rollout without an end, of `model` or of any; the newest of several. Raises ConfigError.

    One that was killed has none either; the next rollout of its model went on from it.
    """
    if model is not None:
        model_name(model, "watch")
    last = {one.model: one for one in read_rollouts(on.journal, model)}
    found = [one for one in last.values() if one.outcome == OPEN]
    return max(found, key=lambda one: one.began, default=None)


def follow_rollout(
    on: Controls,
    record: RolloutRecord,
    progress: Progress,
    lives: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[str, int]:
    """Show every step of `record`, those before too, until it ends; nothing is changed.

    Returns the sentence of its end and an exit code: DONE, FAILED, or INCOMPLETE for one whose
    controller is gone, by `lives` or because another rollout went on from it.
    """
    tail = JournalTail(on.journal.folder / ROLLOUTS)
    while True:
        alive = lives()
        # Before its events: those up to the end that this finds are then shown too.
        now = next(one for one in read_rollouts(on.journal, record.model)
                   if one.rollout == record.rollout)  # fmt: skip
        for event in tail.read():
            if event.rollout == record.rollout:
                _show(event, progress)
        if now.outcome != OPEN:
            sentence = f"{title_sentence(now, total_traffic(now))}, in {duration(now.seconds)}."
            if now.outcome == CONTINUED:
                return sentence, INCOMPLETE
            return sentence, DONE if now.outcome in ("done", "prepared") else FAILED
        if not alive:
            return (
                f"{record.rollout} has no end, and its controller is gone. fab status names the "
                "command that goes on.",
                INCOMPLETE,
            )
        sleep(_POLL_S)


def _show(event: JournalEvent, progress: Progress) -> None:
    if event.event in _QUIET:
        return
    content = event.content
    if event.event == "step":
        progress(event.host, str(content["step"]), str(content.get("detail", "")))
    elif event.event == "routed":
        edge, _, routing = event_text(event.event, content).partition(": ")
        progress(edge, "route", routing)
    else:
        name = "end" if event.event in ENDS else event.event
        progress("fleet", name, event_text(event.event, content) or event.event)


def watch_rollout(on: Controls, model: str | None, lines: Progress) -> int:
    """Follow the running rollout on the terminal; returns the exit code of its end."""
    record = running_rollout(on, model)
    if record is None:
        print("no rollout is running. Those so far: fab history.")
        return DONE
    what = f"{record.action} {record.model}/{record.version} by {record.who}"
    holder = HolderWatch(on.journal.folder, on.config.lock_ttl_s)
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        with LiveView(what) as view:
            sentence, code = follow_rollout(on, record, view.progress, holder.lives)
    else:
        lines("fleet", record.action, what)
        sentence, code = follow_rollout(on, record, lines, holder.lives)
    print(printable(sentence))
    return code


def write_report(on: Controls, rollout: str | None, out: str | None) -> str:
    """Write the page of a rollout, or of an upgrade that has this name; returns its path.

    Raises FleetConfigError, OSError.
    """
    if upgrade := find_upgrade(on.journal, rollout):
        return str(write_upgrade_page(on.journal, upgrade, Path(out) if out else None))
    record = find_rollout(on.journal, rollout)
    prometheus = PrometheusClient(on.prometheus_url, on.passwords)
    return str(write_page(on.journal, record, prometheus, Path(out) if out else None))
