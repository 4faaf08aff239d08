"""Times for people. Pure."""

from __future__ import annotations


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
