"""`lockgate approve MODEL/N`: the door to `serving.release.approval`, which training lacks."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run `lockgate approve ARGV`."""
    from serving.release.approval import main as approve

    return int(approve(list(argv)))
