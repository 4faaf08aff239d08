"""Numbers for people. Pure."""

from __future__ import annotations

import math


def number_text(value: float | None) -> str:
    """A number to four digits, with a dash for none: `0.7312`, `1.2e-05`, `12,000`."""
    if value is None or not math.isfinite(value):
        return "–"
    if value and value == round(value) and abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def plural(count: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
