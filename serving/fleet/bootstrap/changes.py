"""The changes that a host needs: its differences, and the restarts that follow from them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from serving.fleet.bootstrap.facts import HostEnvironment, HostFact, HostUnit
from serving.fleet.bootstrap.host_side import DIGEST_LETTERS
from serving.fleet.bootstrap.units import TRITON


@dataclass(frozen=True)
class HostChange:
    """One fact that will be made, and the reason."""

    fact: HostFact
    reason: str

    def __str__(self) -> str:
        return f"{self.fact.title}: {self.reason}"


def host_changes(facts: Sequence[HostFact], differences: Sequence[str]) -> list[HostChange]:
    """The changes, in the order of the facts; none for a host that is as wanted.

    A unit whose file changes with this run restarts after it, though it is as wanted now.
    """
    changes = []
    changed: set[str] = set()
    for fact, difference in zip(facts, differences, strict=True):
        if not difference and isinstance(fact, HostUnit):
            newer = [path for path in fact.files if path in changed]
            difference = f"{fact.action} after {newer[0]}" if newer else ""
        if not difference:
            continue
        changes.append(HostChange(fact, difference))
        changed.add(getattr(fact, "path", ""))
    return changes


def restarts_triton(changes: Sequence[HostChange]) -> str:
    """The reason why Triton would be restarted, "" where it goes on, or does not run yet."""
    for change in changes:
        if isinstance(change.fact, HostUnit) and change.fact.name == TRITON:
            starts = change.reason in ("not-found", "inactive", "failed", "activating")
            return "" if starts else change.reason
    return ""


def environment_digests(
    facts: Sequence[HostFact], changes: Sequence[HostChange]
) -> tuple[str, str]:
    """The first letters of the digest of the serving environment: that of now, "" for none, and
    that of the facts."""
    fact = next((one for one in facts if isinstance(one, HostEnvironment)), None)
    if fact is None:
        return "", ""
    wanted = fact.digest[:DIGEST_LETTERS]
    reason = next((one.reason for one in changes if one.fact == fact), None)
    if reason is None:
        return wanted, wanted
    _, is_other, before = reason.partition(f"is {PurePosixPath(fact.path).name}-")
    return before if is_other else "", wanted
