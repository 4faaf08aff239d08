"""JUnit reports of pytest: counts, times, and the reasons of skips."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class TestOutcome:
    """One test of a report."""

    __test__ = False  # pytest would collect it by its name

    name: str
    """`module.path::test[parameters]`."""
    outcome: Literal["passed", "failed", "skipped"]
    seconds: float
    """With its fixtures, as pytest counts it."""
    reason: str = ""
    """Of a skip, as the test gave it."""


def read_outcomes(report: Path) -> list[TestOutcome]:
    """Every test of a JUnit report, in its order; none of a report that is not there or not whole.

    A test that failed and could not be torn down has two entries; it is one failure.
    """
    try:
        root = ElementTree.parse(report).getroot()
    except (FileNotFoundError, ElementTree.ParseError):
        return []
    found: dict[str, TestOutcome] = {}
    for case in root.iter("testcase"):
        test = _outcome(case)
        if test.name not in found or test.outcome == "failed":
            found[test.name] = test
    return list(found.values())


def count_outcomes(tests: list[TestOutcome]) -> Counter[str]:
    """Number of tests by outcome."""
    return Counter(test.outcome for test in tests)


def slowest_tests(tests: Iterator[TestOutcome], count: int) -> list[TestOutcome]:
    """The `count` tests that took longest, the longest first."""
    return sorted(tests, key=lambda test: test.seconds, reverse=True)[:count]


def skip_reasons(tests: Iterator[TestOutcome]) -> Counter[str]:
    """Number of skipped tests by reason."""
    return Counter(test.reason for test in tests if test.outcome == "skipped")


def _outcome(case: ElementTree.Element) -> TestOutcome:
    name = f"{case.get('classname', '')}::{case.get('name', '')}"
    seconds = float(case.get("time", 0))
    if case.find("failure") is not None or case.find("error") is not None:
        return TestOutcome(name, "failed", seconds)
    skipped = case.find("skipped")
    if skipped is not None:
        return TestOutcome(name, "skipped", seconds, skipped.get("message", ""))
    return TestOutcome(name, "passed", seconds)
