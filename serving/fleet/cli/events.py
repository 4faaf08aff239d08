"""A rollout for machines: its events as lines of JSON, and its start and end by webhook."""

from __future__ import annotations

import http.client
import json
import sys
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from conf.errors import ConfigError
from conf.names import printable, shown

STDOUT = "-"
TIMEOUT_S = 3.0


class EventFile:
    """A file (`-`: stdout) that grows by a line of JSON with each event. Raises ConfigError."""

    def __init__(self, place: str) -> None:
        self.place = place
        try:
            self._stream: IO[str] | None = sys.stdout
            if place != STDOUT:
                self._stream = Path(place).open("a", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise ConfigError(
                f"--events={printable(place)} cannot be written: {error.strerror}. Type a file "
                "in a folder that you may write to, or - for stdout."
            ) from error

    def __enter__(self) -> EventFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None and self.place != STDOUT:
            self._stream.close()

    def write(self, content: Mapping[str, Any]) -> str:
        """Append one line; returns a sentence where that did not work, and is silent after it."""
        if self._stream is None:
            return ""
        try:
            self._stream.write(f"{json.dumps(content, default=str)}\n")
            self._stream.flush()
        except OSError as error:
            with suppress(OSError):  # nobody reads on; a rollout goes on all the same
                self._stream.close()
            self._stream = None
            return f"--events={printable(self.place)} has no more events: {error.strerror}."
        return ""


@dataclass(frozen=True)
class Webhook:
    """The receiver at `url`, or at the URL that the file at `url_file` holds; "" for none."""

    url: str
    url_file: str = ""

    def post(self, content: Mapping[str, Any]) -> str:
        """POST `content` as JSON; returns a sentence where that did not work.

        The URL may be a secret, so no sentence has more of it than its host.
        """
        url = self.url
        try:
            if self.url_file:
                url = Path(self.url_file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            return f"rollout.webhook_file={printable(self.url_file)} cannot be read: {reason}."
        if not url:
            return ""
        try:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                return "rollout.webhook is not an http or https URL."
            request = urllib.request.Request(
                url, json.dumps(content, default=str).encode(),
                {"Content-Type": "application/json"},
            )  # fmt: skip
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                return ""
        except (OSError, ValueError, http.client.HTTPException) as error:
            where = shown(_host(url))
            return f"the webhook at {where} was not told: {_reason(error, url)}."


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "-"
    except ValueError:
        return "-"


def _reason(error: Exception, url: str) -> str:
    """The cause of a failure without the URL in it."""
    status = getattr(error, "code", None)
    if status is not None:
        return f"it answered {status}"
    reason = str(getattr(error, "reason", "") or error)
    return type(error).__name__ if url in reason else shown(reason)
