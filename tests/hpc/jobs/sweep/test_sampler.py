"""Axes in Hydra's grammar, and Optuna's choice among them: by the seed and the trials alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf import ConfigError
from hpc.jobs.spec.axes import axes_of, point_of, words_of
from hpc.jobs.spec.sweep import first_trial, is_sweep, trials
from hpc.jobs.sweep.sampler import PastTrial, next_points

AXES = axes_of(
    ["task=flights", "optim.lr=tag(log,interval(1e-5,1e-2))", "seed=range(1,20,3)", "model=a,b"]
)
QUICK = settings(max_examples=15, deadline=None)


def values_of(point: dict) -> dict:
    """The values that the ledger has of a trial at `point`."""
    return dict(point)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a=interval(1,8)", (1.0, 8.0, None, False, False)),
        ("a=int(interval(1,8))", (1, 8, None, False, True)),
        ("a=tag(int,log,interval(1,64))", (1, 64, None, True, True)),
        ("a=tag(log,interval(1e-5,1e-2))", (1e-5, 1e-2, None, True, False)),
        ("a=range(1,10,3)", (1, 7, 3, False, True)),
        ("a=range(10,1,-3)", (4, 10, 3, False, True)),
    ],
)
def test_numbers_between_bounds(text, found):
    (axis,) = axes_of([text])
    assert (axis.low, axis.high, axis.step, axis.log, axis.whole) == found
    assert not axis.choices


@pytest.mark.parametrize("text", ["a=1e-3,x,true", "a=choice(1e-3,x,true)"])
def test_choices(text):
    (axis,) = axes_of([text])
    assert axis.choices == ("0.001", "x", "True") and axis.parsed == (0.001, "x", True)
    assert [axis.point(one) for one in (0.001, "x", True)] == list(axis.choices)
    assert [axis.point(one) for one in (1, 1.0, "y", None)] == [None] * 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a=interval(2,1)", "ends before it begins"),
        ("a=tag(log,interval(0,1))", "above 0"),
        ("a=tag(lgo,interval(1,2))", "Nearest: log"),
        ("a=glob(*)", "name the values themselves"),
        ("a=1", "wants ranges to choose from"),
        ("sweeper.seed=1,2", "in common"),
    ],
)
def test_what_is_no_axis(text, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        if "sweeper" in text:
            trials([text])
        axes_of([text])


def test_a_grid_has_no_intervals_and_the_first_trial_goes_without():
    with pytest.raises(ConfigError, match=r"sweeper=optuna sweeper\.trials=20"):
        trials(["seed=1,2", "optim.lr=interval(1e-5,1e-2)"])
    assert first_trial(["b=3", "seed=1,2", "optim.lr=interval(0,1)"]) == ["b=3", "seed=1"]


PAST = st.lists(
    st.tuples(
        st.floats(1e-5, 1e-2), st.integers(0, 6), st.sampled_from("ab"),
        st.sampled_from(("running", "complete", "pruned", "failed")), st.floats(-10, 10),
    ),
    max_size=14,
).map(
    lambda rows: [
        PastTrial(
            {"optim.lr": lr, "seed": 1 + 3 * place, "model": model},
            state,
            value if state == "complete" else None,
        )
        for lr, place, model, state, value in rows
    ]
)  # fmt: skip


@QUICK
@given(PAST, st.sampled_from(("tpe", "random")), st.integers(0, 3), st.integers(1, 3))
def test_the_trials_and_the_seed_decide_alone_and_every_point_is_a_new_one(
    past, sampler, seed, count
):
    points = next_points(AXES, past, sampler, seed, count)
    assert points == next_points(AXES, past, sampler, seed, count)
    before = [one.point for one in past]
    assert all(point not in before for point in points)
    assert len(points) == count
    for point in points:
        assert point_of(AXES, values_of(point)) == point
        assert not any(is_sweep(word) for word in words_of(AXES, point))


@QUICK
@given(st.integers(0, 6), st.integers(0, 100))
def test_any_part_of_a_search_goes_on_with_the_rest_of_it(done, seed):
    """One trial at a time: whatever command chooses the next one, it is the same one."""
    whole: list[PastTrial] = []
    for number in range(6):
        (point,) = next_points(AXES, whole, "tpe", seed, 1)
        whole.append(PastTrial(point, "complete", float(number)))
    again = whole[:done]
    while len(again) < 6:
        (point,) = next_points(AXES, again, "tpe", seed, 1)
        again.append(PastTrial(point, "complete", float(len(again))))
    assert again == whole


def test_another_seed_chooses_other_points():
    assert next_points(AXES, [], "tpe", 1, 3) != next_points(AXES, [], "tpe", 2, 3)


def test_ranges_of_four_values_give_four_and_no_more():
    axes = axes_of(["a=1,2", "b=x,y"])
    points = next_points(axes, [], "tpe", 1, 9)
    assert len(points) == 4 == len({repr(point) for point in points})
    assert next_points(axes, [PastTrial(one, "failed") for one in points], "tpe", 1, 1) == []
