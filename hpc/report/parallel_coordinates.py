"""Parallel coordinates: a vertical axis per parameter, the metric last, a line per run. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conf.page import escaped
from hpc.report.comparison import RankingMetric, parameter_text, parameter_value
from hpc.report.logged_metrics import finite
from hpc.report.reported_run import ReportedRun
from hpc.report.text import number_text

HEIGHT, TOP, BOTTOM = 270, 46, 24
LEAST_WIDTH, AXIS_WIDTH, LEFT, RIGHT = 1060, 132, 104, 80
NAME_LETTERS, VALUE_LETTERS = 22, 14
LOG_RATIO = 20
MOST_LABELS = 10


@dataclass(frozen=True)
class ParallelAxis:
    """One axis: its name, the place of each run from 0 (below) to 1, and labels at places."""

    name: str
    places: Mapping[str, float]
    labels: Sequence[tuple[float, str]]


def parallel_svg(
    runs: Sequence[ReportedRun],
    parameters: Sequence[str],
    metric: RankingMetric,
    kinds: Mapping[str, str],
) -> str:
    """The drawing; a run's line begins and ends where it has values, the best run's is on top."""
    axes = [parameter_axis(name, {run.name: parameter_value(run, name) for run in runs})
            for name in parameters]  # fmt: skip
    values = {run.name: metric.value(run) for run in runs}
    axes.append(_number_axis(metric.name, {run: v for run, v in values.items() if v is not None}))
    width = max(AXIS_WIDTH * len(axes), LEAST_WIDTH)
    places = [_x(place, len(axes), width) for place in range(len(axes))]
    parts = []
    ranked = [run.name for run in metric.ranked(runs)]
    for name in [run.name for run in runs if run.name not in ranked] + ranked[::-1]:
        title = f"{name}: {metric.name} {number_text(values[name])}"
        best = " best" if ranked and name == ranked[0] else ""
        parts.append(
            f'<g class="curve {kinds[name]}{best}"><title>{escaped(title, 160)}</title>'
            f'<polyline points="{_points(name, axes, places)}"/></g>'
        )
    # Over the lines, or nobody could read them.
    parts += [_axis(axis, places[place], place % 2) for place, axis in enumerate(axes)]
    return (
        f'<div class="wide"><svg class="parallel" viewBox="0 0 {width} {HEIGHT}" '
        f'width="{width}" role="img" aria-label="parameters against {escaped(metric.name, 80)}">'
        f"{''.join(parts)}</svg></div>"
    )


def parameter_axis(name: str, values: Mapping[str, object]) -> ParallelAxis:
    """Numbers by their size, on a logarithmic scale where they span much; others by their text."""
    numbers = {run: number for run, v in values.items() if (number := finite(v)) is not None}
    if len(numbers) == len(values):
        return _number_axis(name, numbers)
    texts = sorted({parameter_text(value) for value in values.values()})
    last = max(len(texts) - 1, 1)
    places = {text: place / last for place, text in enumerate(texts)}
    stride = math.ceil(len(texts) / MOST_LABELS)
    labels = [(places[text], text) for text in texts[::stride]]
    return ParallelAxis(
        name, {run: places[parameter_text(value)] for run, value in values.items()}, labels
    )


def _number_axis(name: str, numbers: Mapping[str, float]) -> ParallelAxis:
    least, most = min(numbers.values(), default=0.0), max(numbers.values(), default=0.0)
    log = least > 0 and most / least > LOG_RATIO

    def place(value: float) -> float:
        if most <= least:
            return 0.5
        if log:
            low, high = math.log(least), math.log(most)
            return (math.log(value) - low) / (high - low)
        return (value - least) / (most - least)

    distinct = sorted(set(numbers.values()))
    shown = distinct if len(distinct) <= 6 else [least, most]
    labels: list[tuple[float, str]] = []
    for value in shown:
        if not labels or place(value) - labels[-1][0] > 0.07:
            labels.append((place(value), number_text(value)))
    return ParallelAxis(name, {run: place(value) for run, value in numbers.items()}, labels)


def _axis(axis: ParallelAxis, x: int, row: int) -> str:
    """`row` 1 puts the name a line lower, so that neighbours have room."""
    labels = "".join(
        f'<text class="value" x="{x - 6}" y="{_y(at) + 4:g}">{escaped(_tail(text))}</text>'
        for at, text in axis.labels
    )
    return (
        f'<text class="tick" x="{x}" y="{18 + row * 14}">{escaped(_tail(axis.name, NAME_LETTERS))}'
        f"<title>{escaped(axis.name, 100)}</title></text>"
        f'<line class="axis" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>{labels}'
    )


def _tail(text: str, letters: int = VALUE_LETTERS) -> str:
    """The end of `text`: that of a dotted name is what tells two of them apart."""
    return text if len(text) <= letters else f"…{text[1 - letters :]}"


def _points(run: str, axes: Sequence[ParallelAxis], places: Sequence[int]) -> str:
    return " ".join(
        f"{x},{_y(axis.places[run]):g}"
        for x, axis in zip(places, axes, strict=True)
        if run in axis.places
    )


def _x(place: int, count: int, width: int) -> int:
    return LEFT + round(place * (width - LEFT - RIGHT) / max(count - 1, 1))


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)
