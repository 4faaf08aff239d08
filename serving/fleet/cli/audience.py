"""Everything that watches a rollout beside the person who typed it: the live tree on a terminal,
the file of events, the webhook, and the page at the end.

A rollout never waits for one of them, and none can fail it: what did not work is a warning.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from serving.fleet.cli.command import Controls, RolloutReport
from serving.fleet.cli.events import EventFile, Webhook
from serving.fleet.cli.live import LiveView
from serving.fleet.report.journal_tail import JournalTail
from serving.fleet.report.pages import find_rollout, write_page
from serving.fleet.report.prometheus import PrometheusClient
from serving.fleet.rollout.engine import Progress
from serving.fleet.rollout.journal import ROLLOUTS, operator
from serving.fleet.rollout.records import JournalEvent

_POLL_S = 0.2


def roll_for_audience(
    on: Controls,
    what: str,
    lines: Progress,
    events: str | None,
    live: bool,
    act: Callable[[Progress], RolloutReport],
) -> RolloutReport:
    """Do `act` before its audience; its report has the warnings of these.

    `lines` shows progress where there is no tree: `live` is false, or stdout is no terminal.
    Raises ConfigError for an `events` file that cannot be written, before anything is done.
    """
    with ExitStack() as stack:
        progress = lines
        file = stack.enter_context(EventFile(events)) if events else None
        if live and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            progress = stack.enter_context(LiveView(what)).progress
        follower = Follower(on, file, Webhook(on.config.webhook, on.config.webhook_file))
        stack.enter_context(follower)
        try:
            report = act(progress)
        except BaseException as error:
            follower.close({"kind": type(error).__name__, "reason": str(error)})
            raise
        follower.close({**asdict(report), "exit_code": report.exit_code})
    warnings = [report.warning, *follower.warnings, _page(on, report.rollout)]
    return replace(report, warning=" ".join(one for one in warnings if one))


@dataclass
class Follower:
    """A thread that hands the journal's lines of this controller's rollout on as they come."""

    on: Controls
    file: EventFile | None
    webhook: Webhook
    warnings: list[str] = field(default_factory=list)

    def __enter__(self) -> Follower:
        self._tail = JournalTail.at_the_end(self.on.journal.folder / ROLLOUTS)
        self._rollout = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def close(self, end: dict[str, Any]) -> None:
        """Hand on what is left, then the end of the rollout."""
        self._over.set()
        self._thread.join()
        self._hand_on()
        content = {"event": "ended", "who": operator(), **end}
        if self.file is not None:
            self._warn(self.file.write(content))
        if self._rollout:  # nobody is called for a rollout that did not begin
            self._warn(self.webhook.post({**content, "rollout": self._rollout}))

    def _follow(self) -> None:
        while not self._over.wait(_POLL_S):
            self._hand_on()

    def _hand_on(self) -> None:
        try:
            found = self._tail.read()
        except OSError as error:
            self._warn(f"the journal could not be followed: {error.strerror}.")
            return
        for event in found:
            begins = not self._rollout and event.event == "started" and event.who == operator()
            if begins:
                self._rollout = event.rollout
            if event.rollout != self._rollout:
                continue
            if self.file is not None:
                self._warn(self.file.write(dict(event.content)))
            if begins:
                self._warn(self.webhook.post(_summary(event)))

    def _warn(self, sentence: str) -> None:
        if sentence and sentence not in self.warnings:
            self.warnings.append(sentence)


def _summary(started: JournalEvent) -> dict[str, Any]:
    keys = ("at", "who", "rollout", "event", "model", "version", "action", "reason", "previous")
    return {key: started.content[key] for key in keys if key in started.content}


def _page(on: Controls, rollout: str) -> str:
    """Write the page of a rollout that has one; returns a sentence where that did not work."""
    folder: Path = on.journal.folder
    try:
        records = {one.rollout for one in on.journal.events()}
        if rollout in records:
            record = find_rollout(on.journal, rollout)
            write_page(on.journal, record, PrometheusClient(on.prometheus_url, on.passwords))
    except OSError as error:
        return f"the page of {rollout} was not written to {folder}: {error.strerror}."
    return ""
