"""The host's watch over its own answers: golden questions to every version that serves, for ever.

One process of the verifier's identity. Readiness is no evidence: a Triton whose Python stub died
is ready at every address and answers every request with an error. What it finds stands in
state/answers.json for the host's facts and metrics, and as one line at the agent port, by which
the edge takes the host out.
"""

from __future__ import annotations

import os
import select
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from serving.artifact.golden import GoldenExample
from serving.host import state
from serving.host.agent_port import AgentPort
from serving.host.agent_verdict import (
    NamedVersion,
    ServedVersion,
    is_definite,
    is_settled,
    verdict,
)
from serving.host.golden_question import GoldenAnswer, examples_of, put_question
from serving.host.home import HostHome
from serving.host.running import States, server_pid
from serving.host.wanted import wanted_versions
from serving.triton.grpc_client import READY, TritonClient
from serving.triton.server import TritonError

UNSEEN = -1
_CONTROL_S = 3.0
# A started Triton is given traffic when it is proven, so that its wait is the host's.
_UNSETTLED_S = 0.25
# Questions take at most one part in so many of the time of a server that is slow to answer.
_SHARE = 20


@dataclass
class AnswerWatch:
    """The knowledge of the Triton process `pid`; None where none runs."""

    home: HostHome
    pid: int | None = UNSEEN
    settled: bool = False
    served: dict[NamedVersion, ServedVersion] = field(default_factory=dict)
    asked: dict[NamedVersion, int] = field(default_factory=dict)
    shown: state.Verdicts = field(default_factory=dict)
    examples: dict[NamedVersion, tuple[GoldenExample, ...]] = field(default_factory=dict)

    def find(self) -> None:
        """Find the Triton that runs now; nothing that was known of another one counts."""
        try:
            pid = server_pid(self.home)
        except OSError:  # too busy to take a connection: the one that was there
            return
        if pid != self.pid:
            self.pid, self.settled = pid, False
            self.served, self.shown = {}, {}
            state.write_verdicts(self.home, self.shown)

    def look(self) -> None:
        """Put a question to each ready version and note what is not ready.

        Where Triton's control hangs, nothing is known anew, and what was known stays.
        """
        if self.pid is None or self.pid == UNSEEN:
            return
        try:
            with TritonClient(self.home.grpc_target, timeout_s=_CONTROL_S) as client:
                states = client.states()
        except TritonError:
            return
        self._update(states)

    def _update(self, states: dict[str, States]) -> None:
        listed = {(m, v): pair[0] for m, found in states.items() for v, pair in found.items()}
        ready = {named for named, word in listed.items() if word == READY}
        self.served = {
            named: self.served.get(named, ServedVersion()).looked_at(listed.get(named, ""))
            for named in ready | wanted_versions(self.home)
        }
        self.examples = {named: kept for named, kept in self.examples.items() if named in ready}
        self.shown = {
            model: kept
            for model, found in self.shown.items()
            if (kept := {v: one for v, one in found.items() if (model, int(v)) in ready})
        }
        for named in sorted(ready):
            self._question(named)
        self.settled = self.settled or is_settled(self._wanted())
        state.write_verdicts(self.home, self.shown)

    def _question(self, named: NamedVersion) -> None:
        model, version = named
        examples = self.examples.get(named) or examples_of(self.home, model, version)
        if not examples:
            self.served[named] = self.served[named].answered(None)
            return
        self.examples[named] = examples
        # The next one in turn after a good answer; a failed one is put again.
        number = self.asked.get(named, 0) % len(examples)
        answer = put_question(self.home, model, version, examples[number])
        self.served[named] = self.served[named].answered(answer)
        if answer.ok is None:
            return
        if answer.ok:
            self.asked[named] = number + 1
        record = _record(answer, self.served[named])
        self.shown.setdefault(model, {})[str(version)] = record

    def _wanted(self) -> dict[NamedVersion, ServedVersion]:
        return {
            named: self.served.get(named, ServedVersion()) for named in wanted_versions(self.home)
        }

    @property
    def definite(self) -> bool:
        """True when something is known of all that must answer."""
        return self.pid != UNSEEN and (self.pid is None or is_definite(self._wanted()))

    def line(self) -> str:
        """The verdict as it is now."""
        return verdict(self.pid is not None, self.settled, self._wanted())

    def pause_s(self, took_s: float) -> float:
        """Seconds until the next look. A first failure is looked into at once."""
        if self.pid is None or not self.settled:
            return max(_UNSETTLED_S, took_s)
        doubtful = any(one.failed == 1 or one.unready == 1 for one in self.served.values())
        share = 0.0 if doubtful else _SHARE * took_s
        return max(self.home.golden_interval_s, share)


def watch_answers(home: HostHome) -> None:
    """Look and show, for ever. Raises OSError for an agent port that cannot be had."""
    watch, port = AnswerWatch(home), AgentPort(home.agent)
    while True:
        began = time.monotonic()
        watch.find()
        _show(watch, port)  # a Triton that was just started is down, also if its answer takes long
        watch.look()
        _show(watch, port)
        _wait(watch, watch.pause_s(time.monotonic() - began))


def _show(watch: AnswerWatch, port: AgentPort) -> None:
    """Show the verdict; the first time not before it is known of all that must answer."""
    line = watch.line()
    if line != port.line and (port.line or watch.definite):
        print(line, file=sys.stderr, flush=True)
        port.show(line)


def _wait(watch: AnswerWatch, seconds: float) -> None:
    """Wait, but no longer than until this Triton has ended."""
    if watch.pid is None or watch.pid == UNSEEN:
        time.sleep(seconds)
        return
    try:
        # Not by /proc: a unit may hide the processes of others there.
        triton = os.pidfd_open(watch.pid)
    except ProcessLookupError:
        time.sleep(_UNSETTLED_S)
        return
    try:
        select.select([triton], [], [], seconds)
    finally:
        os.close(triton)


def _record(answer: GoldenAnswer, served: ServedVersion) -> dict[str, Any]:
    return {
        "ok": answer.ok,
        "detail": answer.detail,
        "seconds": answer.seconds,
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "failed_in_row": served.failed,
    }
