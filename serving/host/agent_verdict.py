"""The verdict of a host on its own answers, as HAProxy's agent check reads it. Values, no effects.

`up`, or `down #reason`; every rule here is about one of two faults. A host that answers wrongly
must lose its traffic in seconds. A host that is well must not lose it: whatever may be a moment's
(one failed question, one look into the middle of a change, a server too busy for a question) has
to be seen twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from serving.host.golden_question import GoldenAnswer
from serving.triton.grpc_client import READY

TWICE = 2
UP = "up"
NamedVersion = tuple[str, int]


@dataclass(frozen=True)
class ServedVersion:
    """One version since this Triton process started.

    `unready` and `failed` count in a row the looks that found it in another state than READY, and
    its golden questions that failed. `proven` once a question was answered as it must be.
    """

    state: str = ""
    unready: int = 0
    failed: int = 0
    proven: bool = False

    def looked_at(self, state: str) -> ServedVersion:
        """After a look at Triton's list; "" for a version that is not in it."""
        return replace(self, state=state, unready=0 if state == READY else self.unready + 1)

    def answered(self, answer: GoldenAnswer | None) -> ServedVersion:
        """After a question; None for a version without questions, for which READY must do."""
        if answer is None:
            return replace(self, failed=0, proven=self.state == READY)
        if answer.ok is None:
            return self
        return replace(self, failed=0, proven=True) if answer.ok else self._failed()

    def _failed(self) -> ServedVersion:
        return replace(self, failed=self.failed + 1)


def is_settled(wanted: Mapping[NamedVersion, ServedVersion]) -> bool:
    """True when every wanted version was proven since Triton started."""
    return all(one.proven for one in wanted.values())


def is_definite(wanted: Mapping[NamedVersion, ServedVersion]) -> bool:
    """True when something is known of every wanted version, good or bad."""
    return all(one.proven or one.failed or one.unready >= TWICE for one in wanted.values())


def verdict(running: bool, settled: bool, wanted: Mapping[NamedVersion, ServedVersion]) -> str:
    """One line for HAProxy. It names models, versions and states, and nothing else of the host.

    `settled` is false from a start of Triton until each wanted version was proven once: a host that
    was restarted gets nothing before. After that only a fault takes it out.
    """
    if not running:
        return "down #Triton does not run"
    for (model, version), one in sorted(wanted.items()):
        named = f"{model}/{version}"
        if one.unready >= TWICE:
            return f"down #{named} is {one.state or 'not loaded'}"
        if one.failed >= TWICE:
            return f"down #{named} answers its golden questions wrongly"
        if not settled and not one.proven:
            return f"down #{named} is not proven since Triton started"
    return UP
