"""Early stopping: the laws of the median, and the sentence of one that is ended."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hpc.jobs.sweep.early_stop import EarlyStop, TrialCurve, early_stops

VALUES = st.floats(-1e6, 1e6)
POINTS = st.dictionaries(st.integers(0, 100), VALUES, max_size=5)
CURVES = st.lists(st.tuples(POINTS, st.booleans()), max_size=9).map(
    lambda rows: [
        TrialCurve(f"run-{number}", points, 100, running)
        for number, (points, running) in enumerate(rows)
    ]
)


def stops(curves, lower: bool = True, warmup: int | None = 0, startup: int = 1) -> list[EarlyStop]:
    return early_stops(curves, "loss", lower, warmup, startup)


@given(CURVES, st.booleans(), st.integers(0, 100), st.integers(1, 5))
def test_never_the_best_nor_one_without_data_nor_one_that_does_not_run(
    curves, lower, warmup, startup
):
    best = min if lower else max
    ended = {one.run for one in stops(curves, lower, warmup, startup)}
    with_data = [one for one in curves if one.points]
    for value_of in (
        lambda one: best(one.points.values()),
        lambda one: one.points[max(one.points)],
    ):
        top = best(map(value_of, with_data), default=None)
        assert not ended & {one.run for one in with_data if value_of(one) == top}
    for one in curves:
        if not one.points or not one.running or max(one.points) < warmup:
            assert one.run not in ended
    assert len(ended) < max(len(with_data), 1)


@given(CURVES, st.booleans(), st.randoms())
def test_neither_the_order_of_the_trials_nor_the_sign_decides(curves, lower, random):
    mixed = list(curves)
    random.shuffle(mixed)
    turned = [
        replace(one, points={at: -value for at, value in one.points.items()}) for one in mixed
    ]
    ended = {one.run for one in stops(curves, lower)}
    assert {one.run for one in stops(mixed, lower)} == ended
    assert {one.run for one in stops(turned, not lower)} == ended


@given(CURVES, st.booleans())
def test_each_is_worse_than_the_median_of_at_least_as_many_as_are_asked_for(curves, lower):
    for one in stops(curves, lower, startup=2):
        assert one.others >= 2
        assert (one.value > one.median) if lower else (one.value < one.median)


def four(**points_of_the_last: float) -> list[TrialCurve]:
    """Three trials that are over, and one that has come to step 40 of 100."""
    done = [
        TrialCurve(name, {20: value + 0.1, 40: value, 100: 0.3}, 100, False)
        for name, value in (("a", 0.50), ("b", 0.52), ("c", 0.60))
    ]
    points = {int(key[1:]): value for key, value in points_of_the_last.items()}
    return [*done, TrialCurve("d", points, 100, True)]


def test_a_worse_one_is_ended_with_the_numbers_that_decided():
    (stop,) = stops(four(s20=0.9, s40=0.71))
    assert stop == EarlyStop("d", "loss", 0.71, 40, 0.52, 3)
    assert stop.sentence == ("stopped early: best loss 0.71 at step 40, median 0.52 of 3 others")


def test_what_leaves_it_alone():
    bad = four(s20=0.9, s40=0.71)
    assert stops(bad, warmup=41) == []
    assert stops(bad, warmup=None) != []  # a tenth of 100 steps
    assert stops(four(s9=0.9), warmup=None, startup=3) == []
    assert stops(bad, startup=4) == []
    assert stops(four(s20=0.9, s40=0.51)) == []
    assert stops(four(s20=0.4, s40=0.71)) == []  # its best counts, not its newest
    assert stops(four(s40=0.71, s100=0.71)) == []  # at its last step
    assert stops(four()) == []
