"""The plan of a punishment: faults at random times, drawn from a seed. Values, no effects."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

KINDS = ("rank", "node", "slurmctld", "mlflow", "disk")
"""All kinds of faults; each has a function in `scripts.train_punish.faults`."""
DOWN_S = (3.0, 12.0)
"""Shortest and longest time for which a daemon is down, or a disk full."""
NODE_DOWN_S = (25.0, 40.0)
"""That of a node, which boots in between."""
DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(s|m|h)?", re.ASCII)
UNIT_S = {"s": 1, "m": 60, "h": 3600}
LONGEST_S = 24 * 3600


@dataclass(frozen=True)
class DrawnFault:
    """One fault of the plan."""

    kind: str
    at_s: float
    """Seconds after the first step."""
    down_s: float
    """Seconds until it is healed; of no meaning for a killed rank."""
    choice: float
    """In [0, 1): chooses among the ranks, or the nodes."""


def drawn_faults(
    kinds: Sequence[str], mean_s: float, for_s: float, seed: int
) -> tuple[DrawnFault, ...]:
    """Faults of `kinds` in the first `for_s` seconds, in the order of their times.

    The gaps between them are exponentially distributed with the mean `mean_s`. The kinds come in
    rounds, each in an order of its own, so that a short punishment has all of them.
    """
    draw = random.Random(seed)
    found: list[DrawnFault] = []
    round_left: list[str] = []
    at_s = draw.expovariate(1 / mean_s)
    while at_s < for_s:
        if not round_left:
            round_left = draw.sample(list(kinds), len(kinds))
        kind = round_left.pop()
        down_s = draw.uniform(*(NODE_DOWN_S if kind == "node" else DOWN_S))
        fault = DrawnFault(kind, at_s, down_s, draw.random())
        found.append(fault)
        at_s += draw.expovariate(1 / mean_s)
    return tuple(found)


def duration_s(text: str) -> float:
    """Seconds of `90`, `20s`, `10m` or `1h`. Raises ValueError for anything else."""
    match = DURATION.fullmatch(text)
    seconds = float(match[1]) * UNIT_S[match[2] or "s"] if match else 0.0
    if not 1 <= seconds <= LONGEST_S:
        raise ValueError(f"{text!r} is no time from 1s to 24h; type it as 20s, 10m or 1h")
    return seconds


def fault_kinds(text: str) -> tuple[str, ...]:
    """The kinds in `rank,node`. Raises ValueError that names the known ones."""
    kinds = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no kind of fault; there are {', '.join(KINDS)}")
    return kinds
