"""Verdicts: unknown is fail, exceptions are reasons, and a declared gate is always judged."""

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.artifact.manifest import GateRecord
from serving.release import gate
from serving.release.gate import Check, at_least, at_most, holds, judge, unknown

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(FINITE, FINITE)
def test_a_bound_is_inclusive_and_the_two_kinds_mirror(value: float, threshold: float) -> None:
    assert (at_least("g", value, threshold).verdict == "pass") == (value >= threshold)
    assert at_most("g", value, threshold).verdict == at_least("g", -value, -threshold).verdict


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_unknown_on_either_side(value: float) -> None:
    for record in (at_least("g", value, 1), at_most("g", value, 1), at_least("g", 1, value)):
        assert record.verdict == "unknown"


def test_an_exception_is_unknown_with_its_reason_and_what_was_judged_before_stays() -> None:
    def run() -> Iterator[GateRecord]:
        yield holds("one", True, "fine")
        raise TimeoutError("no answer within 30 s\nstack")

    one, two = judge(Check(("one", "two"), run))
    assert (one.verdict, two.verdict) == ("pass", "unknown")
    assert two.detail == "TimeoutError: no answer within 30 s"


def test_a_gate_that_a_check_forgets_is_unknown_and_one_it_adds_counts() -> None:
    records = judge(Check(("declared",), lambda: [holds("added", False, "")]))
    assert [(r.name, r.verdict) for r in records] == [("declared", "unknown"), ("added", "fail")]


RECORDS = st.lists(
    st.builds(
        GateRecord,
        st.text(max_size=3),
        st.sampled_from(["pass", "fail", "unknown"]),
        st.booleans(),
        st.none(),
        st.none(),
        st.just(""),
    )
)


@given(RECORDS)
def test_only_all_required_gates_passed_release(records: list[GateRecord]) -> None:
    required = [record.verdict for record in records if record.required]
    assert gate.may_release(records) == (bool(required) and set(required) == {"pass"})


@given(RECORDS)
def test_one_more_gate_never_opens_what_was_shut(records: list[GateRecord]) -> None:
    if gate.refused(records):
        for more in (holds("g", True, ""), holds("g", False, ""), unknown("g", "")):
            assert not gate.may_release([*records, more])


def test_a_check_that_is_not_required_reports_and_stops_nothing() -> None:
    reported = judge(Check(("xz",), lambda: [at_most("xz", 3.0, 2.2)], required=False))
    assert (reported[0].verdict, reported[0].required) == ("fail", False)
    assert gate.may_release([*reported, holds("gzip", True, "")])
