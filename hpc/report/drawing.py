"""Curves over steps as inline SVG: one chart, with its scale and its marks. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from conf.page import escaped
from hpc.report.logged_metrics import Point, thinned
from hpc.report.text import number_text

WIDTH, HEIGHT = 520, 236
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 26
TICKS = 5
LEAST_SPAN = 1e-290  # a tick of less would round to 0
LOG_RATIO = 50
"""A loss that spans more is drawn over a logarithmic scale."""


@dataclass(frozen=True)
class ChartSeries:
    """One curve; `kind` is its class in the style, `dots` shows each of few points."""

    name: str
    kind: str
    points: Sequence[Point]
    dots: bool = False


@dataclass(frozen=True)
class CurveChart:
    """Curves of one quantity; `marks` are the steps of requeues."""

    name: str
    series: Sequence[ChartSeries]
    last_step: float
    """The end of the axis of steps: one for all charts of a page."""
    marks: Sequence[int] = ()
    log_allowed: bool = False


@dataclass(frozen=True)
class Scale:
    """Values as places between `begin` and `end` of the drawing."""

    least: float
    most: float
    begin: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """The place of `value`, to a tenth of a pixel; one outside is put to the edge."""
        low, high, at = self.least, self.most, min(max(value, self.least), self.most)
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.begin + share * (self.end - self.begin), 1)

    def ticks(self) -> list[float]:
        """Round values within the scale, about five."""
        if self.log:
            return _log_ticks(self.least, self.most)
        span = self.most - self.least
        if span < LEAST_SPAN:
            return [self.least]
        raw = span / TICKS
        power = 10.0 ** math.floor(math.log10(raw))
        step = next((power * m for m in (1, 2, 5) if power * m >= raw), power * 10)
        first = math.ceil(self.least / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.most / step + 1e-9) + 1)][
            : 3 * TICKS
        ]


def chart_svg(chart: CurveChart, columns: int) -> str:
    """The drawing of `chart`; each curve is thinned to `columns` pixel columns."""
    curves = [(series, thinned(series.points, columns)) for series in chart.series]
    values = [value for _, points in curves for _, value in points if value is not None]
    if not values:
        return '<p class="soft">no finite number was logged</p>'
    across = Scale(0, chart.last_step or 1, LEFT, WIDTH - RIGHT)
    upward = _value_scale(values, chart.log_allowed)
    parts = [*drawing_frame(across, upward), *requeue_marks(chart.marks, across)]
    for series, points in curves:
        show_dots = series.dots and len(points) <= columns // 3
        parts.append(
            f'<g class="curve {series.kind}"><title>{escaped(series.name, 100)}</title>'
            f"{''.join(_strokes(points, across, upward))}"
            f"{''.join(_dots(points, across, upward) if show_dots else ())}</g>"
        )
    label = escaped(f"{chart.name} over steps", 120)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _value_scale(values: Sequence[float], log_allowed: bool) -> Scale:
    least, most = min(values), max(values)
    begin, end = HEIGHT - BOTTOM, TOP
    if log_allowed and least > 0 and most / least > LOG_RATIO:
        return Scale(least, most, begin, end, log=True)
    margin = (most - least) * 0.05 or abs(most) * 0.05 or 1.0
    return Scale(0.0 if 0 <= least < margin else least - margin, most + margin, begin, end)


def drawing_frame(across: Scale, upward: Scale) -> Iterator[str]:
    """Grid, ticks and the axis of steps."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick in upward.ticks():
        y = upward.place(tick)
        yield (
            f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
            f'<text class="value" x="{LEFT - 6}" y="{y + 4}">{_tick_text(tick)}</text>'
        )
    for tick in across.ticks():
        x = across.place(tick)
        yield (
            f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>'
            f'<text class="tick" x="{x}" y="{bottom + 17}">{_tick_text(tick)}</text>'
        )
    yield f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'


def requeue_marks(marks: Sequence[int], across: Scale) -> Iterator[str]:
    """A line at each step after which an attempt went on."""
    for step in marks[:200]:
        if across.least <= step <= across.most:
            x = across.place(step)
            yield (
                f'<line class="requeue" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}">'
                f"<title>resumed after step {step:,}</title></line>"
            )


def _strokes(points: Sequence[Point], across: Scale, upward: Scale) -> Iterator[str]:
    """A polyline for each stretch of numbers; what is no number parts two of them."""
    stretch: list[str] = []
    for step, value in (*points, (0.0, None)):
        if value is not None:
            stretch.append(f"{across.place(step):g},{upward.place(value):g}")
        elif stretch:
            # A stroke without length is a dot, by its round cap.
            yield f'<polyline points="{" ".join(stretch if stretch[1:] else stretch * 2)}"/>'
            stretch = []


def _dots(points: Sequence[Point], across: Scale, upward: Scale) -> Iterator[str]:
    for step, value in points:
        if value is not None:
            yield (
                f'<circle cx="{across.place(step):g}" cy="{upward.place(value):g}" r="3.5">'
                f"<title>{number_text(value)} after step {step:,.0f}</title></circle>"
            )


def _log_ticks(least: float, most: float) -> list[float]:
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    stride = max((last - first) // TICKS, 1)
    ticks = [10.0**power * factor for power in range(first, last + 1, stride) for factor in factors]
    return [tick for tick in ticks if least <= tick <= most]


def _tick_text(value: float) -> str:
    if abs(value) >= 1e4:
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if size <= abs(value) < size * 1000:
                return f"{value / size:.4g}{letter}"
    return f"{value:.3g}" if abs(value) < 1000 or abs(value) >= 1e12 else f"{value:,.0f}"
