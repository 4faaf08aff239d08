"""Laws of the split: whole groups, once each, by shares, whatever the order of the rows."""

from __future__ import annotations

from datetime import date, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.data.refusal import DataRefused
from hpc.data.split import LATER, SPLITS, SplitSpec, split_groups, split_table

FRACTIONS = {"train": 0.6, "validation": 0.25, "holdout": 0.15}
SPEC = SplitSpec(FRACTIONS, seed=3)
START = date(2020, 1, 1)
BY_DAY = SplitSpec(FRACTIONS, seed=3, time="day", cuts={LATER: "2020-02-01"})

rows = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60)), min_size=1, max_size=80)


def days(found: list[tuple[int, int]]) -> pa.Array:
    return pa.array([START + timedelta(day) for _, day in found], pa.date32())


@given(rows, st.randoms())
@settings(max_examples=100, deadline=None)
def test_every_group_is_in_one_split_whatever_the_order_of_rows(found, random) -> None:
    groups = [group for group, _ in found]
    split_of = split_groups(groups, days(found), BY_DAY)
    assert set(split_of) == set(groups) and set(split_of.values()) <= {*SPLITS, LATER}
    shuffled = random.sample(found, len(found))
    again = split_groups([group for group, _ in shuffled], days(shuffled), BY_DAY)
    assert again == split_of
    for group, split in split_of.items():
        latest = max(day for one, day in found if one == group)
        assert (split == LATER) == (latest >= 31)


@given(st.sets(st.text(min_size=1) | st.dates().map(str), max_size=60), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_shares_are_those_of_the_fractions(groups: set[str], seed: int) -> None:
    split_of = split_groups(sorted(groups), None, SplitSpec(FRACTIONS, seed))
    counts = [list(split_of.values()).count(split) for split in SPLITS]
    assert sum(counts) == len(groups)
    for count, fraction in zip(counts, FRACTIONS.values(), strict=True):
        assert abs(count - fraction * len(groups)) <= 1


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1, width=32)), min_size=30, max_size=60))
@settings(max_examples=60, deadline=None)
def test_without_a_group_equal_rows_stay_together_and_none_is_lost(found) -> None:
    table = pa.table({"a": [one for one, _ in found], "b": [other for _, other in found]})
    try:
        parts = split_table(table, "", None, SPEC)
    except DataRefused:
        assert len(set(found)) < 10
        return
    sets = [
        set(zip(*(part[name].to_pylist() for name in "ab"), strict=True)) for part in parts.values()
    ]
    assert sum(part.num_rows for part in parts.values()) == len(found)
    assert sum(map(len, sets)) == len(set().union(*sets))


def test_another_seed_is_another_split() -> None:
    groups = list(range(100))
    assert split_groups(groups, None, SPEC) != split_groups(groups, None, SplitSpec(FRACTIONS, 4))


def test_two_cuts_by_number() -> None:
    spec = SplitSpec({"train": 1.0}, time="year", cuts={"validation": 2018, "holdout": 2019})
    years = [2015, 2018, 2019, 2017, 2021]
    found = split_groups(list("abcde"), pa.array(years, pa.int32()), spec)
    assert "".join(found[one][0] for one in "abcde") == "tvhth"


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"fractions": {"train": 0.5, "validation": 0.5}}, "must name train, validation, holdout"),
        ({"fractions": {**FRACTIONS, "later": 0.1}}, "must name train, validation, holdout"),
        ({"fractions": {**FRACTIONS, "train": 0.61}}, "add up to 1"),
        ({"fractions": FRACTIONS, "cuts": {"later": 1}}, "give both or none"),
        ({"fractions": FRACTIONS, "time": "day"}, "give both or none"),
    ],
)
def test_a_wrong_spec_is_refused(settings_: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplitSpec(**settings_)


def test_cuts_must_ascend_and_be_of_the_columns_type() -> None:
    times = pa.array([1, 2], pa.int32())
    down = SplitSpec({"train": 1.0}, time="t", cuts={"validation": 2, "holdout": 1})
    with pytest.raises(DataRefused, match="must ascend"):
        split_groups([1, 2], times, down)
    words = SplitSpec({"train": 1.0}, time="t", cuts={"validation": "x", "holdout": "y"})
    with pytest.raises(DataRefused, match=r"cuts\.validation=x: column 't' is int32"):
        split_groups([1, 2], times, words)
