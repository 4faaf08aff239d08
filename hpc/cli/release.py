"""`lockgate release run=RUN`: the door to `serving.release`, which this plane does not import."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run `lockgate release ARGV`."""
    from serving.release.command import main as release

    return int(release(list(argv)))
