"""Verdicts: unknown is fail, exceptions are reasons, and a declared record is always there."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.artifact.manifest import GateRecord
from serving.release import gate
from serving.release.gate import at_least, at_most, holds, reported, run_gate, run_gates, unknown
from serving.release.subject import GateSubject

from .subjects import bare_subject

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@dataclass(frozen=True)
class PlannedGate:
    """Declares `declared` and does what `measure` does."""

    declared: tuple[str, ...]
    measure: Callable[[], Iterable[GateRecord]]
    required: bool = True

    def names(self, name: str, subject: GateSubject) -> tuple[str, ...]:
        return self.declared

    def run(self, name: str, subject: GateSubject) -> Iterable[GateRecord]:
        return self.measure()


def records_of(planned: PlannedGate) -> list[GateRecord]:
    return run_gate("g", planned, bare_subject())


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

    one, two = records_of(PlannedGate(("one", "two"), run))
    assert (one.verdict, two.verdict) == ("pass", "unknown")
    assert two.detail == "TimeoutError: no answer within 30 s"


def test_every_declared_record_is_unknown_when_the_gate_raises_at_once() -> None:
    def run() -> Iterable[GateRecord]:
        raise OSError("no such dataset")

    found = records_of(PlannedGate(("one", "two"), run))
    assert [(one.name, one.verdict, one.detail) for one in found] == [
        ("one", "unknown", "OSError: no such dataset"),
        ("two", "unknown", "OSError: no such dataset"),
    ]


def test_an_exception_after_the_last_declared_record_is_not_lost() -> None:
    def run() -> Iterator[GateRecord]:
        yield holds("one", True, "fine")
        raise ValueError("a slice that nobody declared")

    found = records_of(PlannedGate(("one",), run))
    assert [(one.name, one.verdict) for one in found] == [("one", "pass"), ("g.error", "unknown")]
    assert not gate.may_release(found)


def test_a_gate_that_cannot_name_its_records_is_unknown_by_its_own_name() -> None:
    @dataclass(frozen=True)
    class Nameless(PlannedGate):
        def names(self, name: str, subject: GateSubject) -> tuple[str, ...]:
            raise KeyError("classes")

    (record,) = records_of(Nameless((), list))
    assert (record.name, record.verdict, record.required) == ("g", "unknown", True)


def test_a_gate_that_a_check_forgets_is_unknown_and_one_it_adds_counts() -> None:
    records = records_of(PlannedGate(("declared",), lambda: [holds("added", False, "")]))
    assert [(r.name, r.verdict) for r in records] == [("declared", "unknown"), ("added", "fail")]


def test_gates_run_in_the_order_of_the_yaml() -> None:
    order = []

    def planned(name: str) -> PlannedGate:
        return PlannedGate((name,), lambda: [order.append(name) or holds(name, True, "")])

    gates = {name: planned(name) for name in ("slow", "alpha", "mid.two", "mid.one")}
    found = [record.name for record in run_gates(gates, bare_subject())]
    assert found == order == ["slow", "alpha", "mid.two", "mid.one"]


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


def test_a_gate_that_is_not_required_reports_and_stops_nothing() -> None:
    found = records_of(PlannedGate(("xz",), lambda: [at_most("xz", 3.0, 2.2)], required=False))
    assert (found[0].verdict, found[0].required) == ("fail", False)
    assert gate.may_release([*found, holds("gzip", True, "")])


def test_one_record_of_a_required_gate_can_be_reported_only() -> None:
    def run() -> Iterable[GateRecord]:
        return [holds("whole", True, ""), reported(holds("slice", False, ""))]

    found = records_of(PlannedGate(("whole", "slice"), run))
    assert [(one.name, one.required) for one in found] == [("whole", True), ("slice", False)]
    assert gate.may_release(found)
    # The other way round a record cannot make itself required in a gate that is not.
    found = records_of(PlannedGate(("whole", "slice"), run, required=False))
    assert {one.required for one in found} == {False}


def test_what_a_subject_made_is_made_once_and_so_is_its_failure() -> None:
    calls = []

    def start() -> None:
        calls.append("start")
        raise RuntimeError("the server did not come up")

    subject = bare_subject(start_servers=start)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="did not come up"):
            subject.served()
    assert calls == ["start"]
    assert [subject.once("n", lambda: calls.append("n") or 7) for _ in range(2)] == [7, 7]
    assert calls == ["start", "n"]
