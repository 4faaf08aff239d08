"""The rule by which checkpoints stay or go, on their steps alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Retention:
    """The checkpoints of a run that stay; each one that any of the fields names."""

    newest: int
    """So many of the newest, at least 1."""
    every: int = 0
    """All whose step is a multiple of it; 0 for none."""
    best: int = 0
    """So many of the best by the run's main metric, of those that were evaluated."""


def removable(
    steps: Collection[int],
    newest: int,
    retention: Retention,
    scores: Mapping[int, float],
    protected: Collection[int],
) -> list[int]:
    """The steps of the checkpoints that go, now that the one of step `newest` is durable.

    Those after `newest` are of a past that was not good, and go first. `scores` are of evaluated
    steps, the highest is the best; `protected` ones stay: pinned, or what an attempt began from.
    """
    later = sorted(step for step in steps if step > newest)
    earlier = sorted(step for step in steps if step <= newest)
    stay = {newest, *earlier[-retention.newest :], *protected}
    if retention.every:
        stay |= {step for step in earlier if step % retention.every == 0}
    if retention.best:
        scored = sorted((step for step in earlier if step in scores), key=lambda s: (scores[s], s))
        stay |= set(scored[-retention.best :])
    return [*later, *(step for step in earlier if step not in stay)]
