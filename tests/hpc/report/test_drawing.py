from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from hpc.report.drawing import HEIGHT, WIDTH, ChartSeries, CurveChart, Scale, chart_svg
from hpc.report.parallel_coordinates import parameter_axis

NUMBERS = st.floats(-1e299, 1e299)
POINTS = st.lists(st.tuples(st.floats(0, 1e15), st.none() | NUMBERS), min_size=1, max_size=20)


def svg(points, log_allowed=False, marks=()) -> str:
    series = ChartSeries("loss", "run0", points)
    return chart_svg(CurveChart("loss", [series], points[-1][0], marks, log_allowed), 400)


@given(POINTS.map(lambda points: sorted(points, key=lambda one: one[0])), st.booleans())
@example([(0.0, 0.0), (1.0, 5e-324)], True)
@example([(0.0, 5e-324), (1.0, 1e299)], True)
@example([(0.0, -1e299), (1.0, 1e299)], False)
def test_every_place_is_in_the_drawing(points, log_allowed):
    text = svg(points, log_allowed)
    places = [
        tuple(map(float, pair.split(",")))
        for stroke in re.findall(r'points="([^"]+)"', text)
        for pair in stroke.split()
    ]
    assert bool(places) == any(value is not None for _, value in points)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)


def test_what_is_no_number_parts_the_curve():
    assert svg([(1, 1.0), (2, 2.0), (3, None), (4, 2.0), (5, 1.0)]).count("<polyline") == 2
    assert svg([(1, 1.0), (2, None), (3, 2.0)]).count("<polyline") == 2
    assert "no finite number" in svg([(1, None)])


def test_a_requeue_is_marked_at_its_step():
    text = svg([(0, 3.0), (100, 1.0)], marks=(50, 900))
    assert "resumed after step 50" in text and "900" not in text


@given(NUMBERS, NUMBERS)
def test_ticks_are_few_and_within(one, other):
    scale = Scale(min(one, other), max(one, other), 0, 100)
    assert len(scale.ticks()) <= 15
    slack = (scale.most - scale.least) * 1e-6
    assert all(scale.least - slack <= tick <= scale.most + slack for tick in scale.ticks())


@given(st.dictionaries(st.text(max_size=3), st.none() | NUMBERS | st.text(max_size=5), max_size=8))
def test_every_value_has_a_place_on_its_axis(values):
    axis = parameter_axis("x", values)
    assert axis.places.keys() == values.keys()
    assert all(0 <= place <= 1 for place in axis.places.values())
    assert all(0 <= place <= 1 for place, _ in axis.labels)
