"""The nodes of a Slurm cluster by state, from sinfo."""

from __future__ import annotations

from collections import Counter

# --all: also of a partition in which this user may not submit, as one who only watches.
SINFO = ("sinfo", "--all", "--noheader", "--Node", "--format=%N|%T|%R")
NODE_POWER = ("sinfo", "--all", "--noheader", "--Node", "--format=%N|%T")
# Always there, at 0 if need be: a series that appears with its first node loses that increase.
NODE_STATES = ("idle", "mixed", "allocated", "completing", "draining", "drained", "down",
               "powered_down", "powering_up")  # fmt: skip
POWER = {"~": "powered_down", "#": "powering_up"}
"""Marks of a node of a cloud, or of one that saves power: it is no fault that it is off."""
OTHER = "other"


def parse_nodes(text: str) -> tuple[dict[str, int], set[str]]:
    """Nodes by state, and the partitions, of `%N|%T|%R` lines (one per node and partition).

    Raises ValueError for a line of another form.
    """
    states: dict[str, str] = {}
    partitions = set()
    for line in text.split("\n"):
        if line.strip():
            node, state, partition = line.split("|", 2)
            # Slurm marks states: `down*` does not answer, `idle~` is powered off, `drained$` ...
            word = state.strip().rstrip("*~#!%$@^-+").lower()
            idle = word in ("idle", "mixed", "allocated")
            states[node] = POWER.get(state.strip()[-1:], word) if idle else word
            partitions.add(partition.strip())
    count = Counter(state if state in NODE_STATES else OTHER for state in states.values())
    return {state: count[state] for state in (*NODE_STATES, OTHER)}, partitions


def booting_nodes(text: str) -> list[str]:
    """The nodes of NODE_POWER's `%N|%T` lines that power saving is bringing up."""
    rows = [line.partition("|") for line in text.split("\n")]
    return sorted({name for name, _, state in rows if state.strip().endswith("#")})
