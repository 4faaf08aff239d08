"""The metric by which runs of one kind are ranked, and its direction. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from hpc.jobs.run.curve import LOWER_IS_BETTER, VALIDATION


def ranking_name(logged: Sequence[Collection[str]]) -> str | None:
    """The held-out metric that most runs have, or else the loss; None where nothing was logged.

    `logged` has the metrics of each run. Baselines (`validation_base_...`) are none, and losses
    come before shares, which many runs have in common.
    """
    counts = Counter(
        name
        for names in logged
        for name in names
        if name == "loss" or (name.startswith(VALIDATION) and "base_" not in name)
    )
    if not counts:
        return None
    return max(counts, key=lambda one: (one != "loss", counts[one], _preference(one), one))


def lower_is_better(name: str) -> bool:
    """True for a loss or an error, by its name."""
    return LOWER_IS_BETTER.search(name) is not None


def _preference(name: str) -> int:
    return sum(part in name for part in ("loss", "nats", "rmse"))
