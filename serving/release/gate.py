"""Gates: named checks with a verdict. Unknown is fail, and no gate can be left out silently.

A `Check` declares the gates it will judge before it runs. One that raises, answers for less than
it declared, or measures something that is no number, leaves `unknown` with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from serving.artifact.manifest import GateRecord


@dataclass(frozen=True)
class Check:
    """One measurement that judges the gates `names`.

    When `required` is False its verdicts are reported and stop nothing.
    """

    names: tuple[str, ...]
    run: Callable[[], Iterable[GateRecord]]
    required: bool = True


def at_least(name: str, value: float, threshold: float, detail: str = "") -> GateRecord:
    """Pass when `value` >= `threshold`; unknown when either is not a finite number."""
    return _compared(name, value, threshold, value >= threshold, detail)


def at_most(name: str, value: float, threshold: float, detail: str = "") -> GateRecord:
    """Pass when `value` <= `threshold`; unknown when either is not a finite number."""
    return _compared(name, value, threshold, value <= threshold, detail)


def holds(name: str, truth: bool, detail: str) -> GateRecord:
    """Pass when `truth`; for what has no number."""
    return GateRecord(name, "pass" if truth else "fail", True, None, None, detail)


def unknown(name: str, reason: str) -> GateRecord:
    """What could not be judged, and why."""
    return GateRecord(name, "unknown", True, None, None, reason)


def judge(check: Check) -> list[GateRecord]:
    """Run one check; a record for each gate it declared, in that order, then any it added."""
    found: dict[str, GateRecord] = {}
    reason = "the check ended without judging this gate"
    try:
        for record in check.run():
            found[record.name] = record
    except Exception as error:  # noqa: BLE001 - whatever went wrong is the reason, and stops it
        reason = _sentence(error)
    names = [*check.names, *(name for name in found if name not in check.names)]
    judged = (found.get(name) or unknown(name, reason) for name in names)
    return [replace(record, required=check.required) for record in judged]


def judge_all(checks: Iterable[Check]) -> Iterator[GateRecord]:
    """Every check in order, each record as soon as it is there."""
    for check in checks:
        yield from judge(check)


def refused(records: Iterable[GateRecord]) -> list[GateRecord]:
    """The required gates that did not pass."""
    return [record for record in records if record.required and record.verdict != "pass"]


def may_release(records: Iterable[GateRecord]) -> bool:
    """Whether every required gate passed; without any required gate nothing may be released."""
    judged = list(records)
    return any(record.required for record in judged) and not refused(judged)


def _compared(name: str, value: float, threshold: float, good: bool, detail: str) -> GateRecord:
    if not (math.isfinite(value) and math.isfinite(threshold)):
        return unknown(name, f"measured {value} against {threshold}. {detail}".strip())
    return GateRecord(
        name, "pass" if good else "fail", True, float(value), float(threshold), detail
    )


def _sentence(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
