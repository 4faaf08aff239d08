"""Texts of a run in HTML, numbers and times for people. Pure."""

from __future__ import annotations

import html
import math
from datetime import UTC, datetime

from conf.names import printable

LONGEST = 300


def escaped(text: object, letters: int = LONGEST) -> str:
    """`text` as text of an HTML page or of an attribute in quotes: nothing in it is markup.

    What is longer than `letters` is cut, letters that a terminal or a page would obey are shown.
    """
    whole = str(text)
    short = whole if len(whole) <= letters else f"{whole[: letters - 1]}…"
    return html.escape(printable(short), quote=True)


def number_text(value: float | None) -> str:
    """A number to four digits, with a dash for none: `0.7312`, `1.2e-05`, `12,000`."""
    if value is None or not math.isfinite(value):
        return "–"
    if value and value == round(value) and abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def utc(at: float) -> str:
    """A moment as `2026-01-31 23:59:59 UTC`."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """A time span in two units at most: `0.4 s`, `3 min 20 s`, `2 h 5 min`, `3 days 4 h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for size, unit, rest_size, rest_unit in (
        (86400, "days", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"),
    ):  # fmt: skip
        if whole >= size:
            count, rest = whole // size, whole % size // rest_size
            name = "day" if unit == "days" and count == 1 else unit
            return f"{count} {name} {rest} {rest_unit}" if rest else f"{count} {name}"
    return f"{whole} s"


def plural(count: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
