"""Goals of the rollouts, each by its name; see `scripts.goals`."""

from __future__ import annotations

from collections.abc import Mapping

from scripts.goals import Goal

BYTES = "bytes of the control host to 8 hosts of one region, in packages"
RSYNC = "seconds to 4 hosts, against an rsync loop"
ANSIBLE = "seconds to 4 hosts, against Ansible"
AGAIN = "seconds of an unchanged push to 4 hosts, against Ansible"

FAILED = "failed requests under load"
REQUESTS = "requests under load"
P99_CHANGE = "p99 during a version change, in steady ones"
P99_RESTART = "p99 during a rolling restart, in steady ones"
STALL = "longest time without an answer, s"
FLIP = "from the first answer of the version before to the last of the other, s"
ROLLBACK = "from typing fab rollback to the last answer of the other version, s"


def all_goals(
    measured: Mapping[str, float], bounds: Mapping[str, float], requests: int = 100_000
) -> list[Goal]:
    """Every goal of the rollouts. `bounds` are the other tools' values, by the goal's name."""

    def against(name: str) -> Goal:
        return Goal(name, bounds.get(name), measured.get(name), "below")

    def limit(name: str, bound: float) -> Goal:
        return Goal(name, bound, measured.get(name))

    return [
        limit(BYTES, 1.1),
        against(RSYNC),
        against(ANSIBLE),
        against(AGAIN),
        limit(FAILED, 0),
        Goal(REQUESTS, requests, measured.get(REQUESTS), "at least"),
        limit(P99_CHANGE, 2),
        limit(P99_RESTART, 2),
        limit(STALL, 1),
        limit(FLIP, 2),
        limit(ROLLBACK, 2),
    ]
