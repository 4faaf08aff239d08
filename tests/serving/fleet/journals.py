"""Journals of rollouts that never were, written by the journal itself on a clock of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from serving.fleet.rollout import journal as journal_module
from serving.fleet.rollout.journal import Journal
from serving.fleet.routing import Routing

BEGAN = datetime(2026, 11, 27, 12, 0, tzinfo=UTC).timestamp()
EDGES = ("us-east", "us-west")
WAVES = [["use1-a"], ["use1-b", "usw2-a"], ["usw2-b"]]


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A folder for a journal, in memory where that can be: every event of it is fsynced."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


class WrittenJournal:
    """A journal and the hands of a clock: `at` is in seconds after BEGAN."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.journal, self.at = Journal(folder), 0.0
        monkeypatch.setattr(journal_module, "_now", self._now)

    def _now(self) -> str:
        return datetime.fromtimestamp(BEGAN + self.at, UTC).isoformat(timespec="milliseconds")

    def record(self, after: float, event: str, rollout: str, version: int, **content) -> None:
        self.at += after
        self.journal.record(event, rollout, model="toy", version=version, **content)

    def production(self, version: int, rollout: str, action: str = "deploy") -> None:
        self.journal.enter(action, rollout, model="toy", version=version, digest="d" * 64)

    def counters(self, after: float, rollout: str, version: int, **versions) -> None:
        content = {name.lstrip("v"): list(pair) for name, pair in versions.items()}
        self.record(after, "counters", rollout, version, versions=content)

    def route(self, after: float, rollout: str, version: int, routing: Routing) -> None:
        for edge in EDGES:
            self.record(after, "routed", rollout, version, edge=edge, routing=routing.as_json())

    def start(self, rollout: str, version: int, previous: int, **content) -> None:
        self.record(
            0, "started", rollout, version, **{
                "action": "deploy", "reason": "better recall in the west", "previous": previous,
                "digest": "ab" * 32, "strategy": "load", "resumes": None, "waves": WAVES, **content,
            },
        )  # fmt: skip

    def host(self, rollout: str, version: int, host: str, versions: tuple[int, ...]) -> None:
        before = {"served": [versions[0]], "config": None, "edge": "ready"}
        self.record(0.1, "before", rollout, version, host=host, before=before, versions=versions)
        for after, step, detail in (
            (0.2, "install", f"toy/{version}"), (0.4, "load", "4 and 5"), (1.9, "check", ""),
            (0.8, "checked", f"8 golden examples of toy/{version} equal"),
        ):  # fmt: skip
            self.record(after, "step", rollout, version, host=host, step=step, detail=detail)
        self.record(0, "proven", rollout, version, host=host, versions=versions)

    def deployment(self, rollout: str = "r5", version: int = 5, previous: int = 4) -> None:
        """From `previous` to `version`, by 5 % and 50 %, without a failed request."""
        self.start(rollout, version, previous)
        self.counters(0.1, rollout, version, v4=(1000, 0))
        for host in (host for wave in WAVES for host in wave):
            self.record(
                0.7, "step", rollout, version, host=host, step="staged", detail="copied 41 MiB"
            )
        for wave in WAVES:
            for host in wave:
                self.host(rollout, version, host, (previous, version))
        self.route(0.1, rollout, version, Routing(previous, version, 5.0))
        self.counters(6.0, rollout, version, v4=(3900, 0), v5=(160, 0))
        self.record(
            0, "analysis", rollout, version, percent=5.0, verdict="pass",
            reasons=["no worse than the baseline"],
            numbers={"canary": {"requests": 160, "p99_s": 0.031}, "baseline": {"p99_s": 0.032}},
        )  # fmt: skip
        self.route(0.1, rollout, version, Routing(previous, version, 50.0))
        self.record(1.0, "paused", rollout, version, reason="lunch")
        self.record(3.0, "resumed", rollout, version, reason="back")
        self.counters(4.0, rollout, version, v4=(5000, 0), v5=(1300, 0))
        self.route(0.1, rollout, version, Routing(version))
        self.counters(3.0, rollout, version, v4=(5008, 0), v5=(3000, 0))
        self.production(version, rollout)
        self.record(0.5, "done", rollout, version, digest="ab" * 32)

    def failure(self, rollout: str = "r6", stuck: bool = False) -> None:
        """Version 6 answers wrong under its canary's share; all but perhaps one host come back."""
        self.start(rollout, 6, 5, reason="", waves=[["use1-a"], ["usw2-a"]])
        self.counters(0, rollout, 6, v5=(9000, 1))
        for host in ("use1-a", "usw2-a"):
            self.record(1, "step", rollout, 6, host=host, step="staged", detail="copied 3 MiB")
            self.host(rollout, 6, host, (5, 6))
        self.route(0.1, rollout, 6, Routing(5, 6, 5.0))
        self.counters(5, rollout, 6, v5=(10000, 1), v6=(46, 14))
        reason = "14 of 46 requests to toy/6 failed"
        self.record(0, "analysis", rollout, 6, percent=5.0, verdict="fail", reasons=[reason],
                    numbers={"p_value": 0.0001})  # fmt: skip
        self.record(0.1, "undoing", rollout, 6, reason=reason, hosts=["use1-a", "usw2-a"])
        self.route(0.1, rollout, 6, Routing(5))
        for host in ("usw2-a", "use1-a"):
            self.record(0.3, "step", rollout, 6, host=host, step="undo", detail="back to 5")
            if not (stuck and host == "use1-a"):
                self.record(0.9, "step", rollout, 6, host=host, step="undone", detail="serves 5")
        self.counters(0.1, rollout, 6, v5=(10400, 1), v6=(46, 14))
        if stuck:
            self.record(0.2, "manual-intervention", rollout, 6, reason=reason,
                        stuck={"use1-a": "its Triton does not answer."})  # fmt: skip
        else:
            self.record(0.2, "rolled-back", rollout, 6, reason=reason)
