"""The journal's new lines as they come: reads a file that another process writes."""

from __future__ import annotations

import json
from pathlib import Path

from conf.errors import LockgateError
from serving.fleet.rollout.records import JournalEvent, event_from


class JournalTail:
    """The lines of a file after `offset` bytes; half a line waits until it is whole."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path, self.offset = path, offset

    @classmethod
    def at_the_end(cls, path: Path) -> JournalTail:
        """The tail of lines yet to come."""
        return cls(path, path.stat().st_size if path.exists() else 0)

    def read(self) -> list[JournalEvent]:
        """The events since the last reading; lines that are none are left out. Raises OSError."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                data = stream.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        found = []
        for line in whole.split(b"\n"):
            try:
                found.append(event_from(json.loads(line.decode("utf-8"))))
            except (ValueError, KeyError, TypeError, RecursionError, LockgateError):
                continue
        return found
