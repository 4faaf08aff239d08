"""The verdict on a canary, and the findings that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Judgement = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class VerdictPart:
    """One part of a verdict, as a sentence with numbers, and the numbers themselves.

    A `remark` decides nothing, and is stated all the same.
    """

    outcome: Literal["pass", "fail", "inconclusive", "remark"]
    sentence: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The end of an analysis: sentences for people, and the numbers for a journal."""

    outcome: Judgement
    reasons: tuple[str, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For the journal's event `analysis`."""
        reasons, numbers = list(self.reasons), dict(self.numbers)
        return {"verdict": self.outcome, "reasons": reasons, "numbers": numbers}


def verdict_of(findings: list[VerdictPart]) -> Verdict:
    """fail where one part fails, else inconclusive where one is, else pass; remarks last."""
    numbers = {name: number for one in findings for name, number in one.numbers.items()}
    outcomes = [one.outcome for one in findings]
    outcome: Judgement = (
        "fail" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass"
    )
    reasons = [one.sentence for one in findings if one.outcome == outcome]
    reasons += [one.sentence for one in findings if one.outcome == "remark"]
    return Verdict(outcome, tuple(reasons), numbers)
