"""Text of others in HTML, times for people. Pure."""

from __future__ import annotations

import html
from datetime import UTC, datetime

from conf.names import printable

LONGEST = 600


def escaped(text: str, letters: int = LONGEST) -> str:
    """`text` as text of an HTML page or an attribute in quotes: nothing in it is markup.

    What is longer than `letters` is cut, letters that a terminal or a page would obey are shown.
    """
    short = text if len(text) <= letters else f"{text[: letters - 1]}…"
    return html.escape(printable(short), quote=True)


def utc(at: float) -> str:
    """A moment as `2026-01-31 23:59:59 UTC`."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """A time span in two units at most: `0.4 s`, `3 min 20 s`, `2 h 5 min`, `3 days`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole, 60, "min", "s")
    if whole < 86400:
        return _two(whole // 60, 60, "h", "min")
    days, rest = divmod(whole // 3600, 24)
    name = "day" if days == 1 else "days"
    return f"{days} {name} {rest} h" if rest and days < 7 else f"{days} {name}"


def ago(seconds: float) -> str:
    """A moment that far back: `3 min ago`, `2 days ago`; `just now` also for one yet to come."""
    if seconds < 5:
        return "just now"
    for size, name in ((86400, "day"), (3600, "h"), (60, "min")):
        if seconds >= size:
            count = int(seconds // size)
            plural = "s" if name == "day" and count > 1 else ""
            return f"{count} {name}{plural} ago"
    return f"{int(seconds)} s ago"


def _two(count: int, size: int, large: str, small: str) -> str:
    whole, rest = divmod(count, size)
    return f"{whole} {large} {rest} {small}" if rest else f"{whole} {large}"
