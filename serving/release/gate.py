"""Gates: named measurements with a verdict. Unknown is fail, and no gate can be left out silently.

A gate is a frozen dataclass that a YAML in conf/gates names by `_target_`; its fields are its
settings. It declares the records it will give before it runs: when it raises, gives fewer than it
declared, or measures something that is no number, `unknown` stands there with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from serving.artifact.manifest import GateRecord
from serving.release.subject import GateSubject


class Gate(Protocol):
    """One kind of measurement, with its settings.

    `name` is the gate's place in its YAML, such as `golden` or `base_rate.auc`; every record's
    name begins with it.
    """

    @property
    def required(self) -> bool:
        """False: its verdicts are reported and stop nothing."""

    def names(self, name: str, subject: GateSubject) -> tuple[str, ...]:
        """The records that `run` will give; costs nothing."""

    def run(self, name: str, subject: GateSubject) -> Iterable[GateRecord]:
        """Measure, and give each record as soon as it is there."""


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
    """A gate that could not be measured, and why."""
    return GateRecord(name, "unknown", True, None, None, reason)


def reported(record: GateRecord) -> GateRecord:
    """`record` as one that stops nothing."""
    return replace(record, required=False)


def run_gate(name: str, gate: Gate, subject: GateSubject) -> list[GateRecord]:
    """The records of one gate: each that it declared, in that order, then any it added.

    A record is required when its gate is and it was not `reported`.
    """
    declared: tuple[str, ...] = (name,)
    found: dict[str, GateRecord] = {}
    reason, broken = "the gate ended without this record", False
    try:
        declared = gate.names(name, subject)
        for record in gate.run(name, subject):
            found[record.name] = record
    except Exception as error:  # noqa: BLE001 - whatever went wrong is the reason, and stops it
        reason, broken = _sentence(error), True
    records = [found.get(one) or unknown(one, reason) for one in declared]
    records += [record for one, record in found.items() if one not in declared]
    if broken and all(record.detail != reason for record in records):
        records.append(unknown(f"{name}.error", reason))
    return [replace(record, required=gate.required and record.required) for record in records]


def run_gates(gates: Mapping[str, Gate], subject: GateSubject) -> Iterator[GateRecord]:
    """Every gate in order, its records as soon as it has ended."""
    for name, gate in gates.items():
        yield from run_gate(name, gate, subject)


def refused(records: Iterable[GateRecord]) -> list[GateRecord]:
    """The required records that are not a pass."""
    return [record for record in records if record.required and record.verdict != "pass"]


def may_release(records: Iterable[GateRecord]) -> bool:
    """True when every required gate passed; without any required gate nothing may be released."""
    found = list(records)
    return any(record.required for record in found) and not refused(found)


def _compared(name: str, value: float, threshold: float, good: bool, detail: str) -> GateRecord:
    if not (math.isfinite(value) and math.isfinite(threshold)):
        return unknown(name, f"measured {value} against {threshold}. {detail}".strip())
    return GateRecord(
        name, "pass" if good else "fail", True, float(value), float(threshold), detail
    )


def _sentence(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
