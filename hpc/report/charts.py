"""The charts of a report: loss, held-out metrics, learning rate, speed, each over steps. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conf.page import escaped
from hpc.jobs.run.curve import VALIDATION
from hpc.report.drawing import ChartSeries, CurveChart, chart_svg
from hpc.report.reported_run import ReportedRun
from hpc.report.step_split import is_part, step_split
from hpc.report.text import number_text, plural

MOST_CHARTS, MOST_CURVES, LEAST_CHARTS = 30, 1200, 3
NAME_LETTERS = 60
MEANINGS = {"lr": "learning rate", "step_seconds": "seconds per step"}


def curve_charts(runs: Sequence[ReportedRun], kinds: Mapping[str, str]) -> list[CurveChart]:
    """A chart per quantity that any run logged: the loss first, then what was held out.

    A held-out loss is drawn in the chart of the loss, as a point per evaluation. Of one run, the
    parts of a step have a chart of their own, see `hpc.report.step_split`.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.metrics.curves))
    if len(runs) == 1 and step_split(runs[0].metrics):
        names = [name for name in names if not is_part(name)]
    held_out = f"{VALIDATION}loss"
    if "loss" in names and held_out in names:
        names.remove(held_out)
    names.sort(key=_rank)
    marks = runs[0].resumed_steps if len(runs) == 1 else ()
    charts = []
    last_step = max(
        (points[-1][0] for run in runs for points in run.metrics.curves.values()), default=0.0
    )
    most = min(max(MOST_CURVES // len(runs), LEAST_CHARTS), MOST_CHARTS)
    for name in names[:most]:
        parts = [name, held_out] if name == "loss" else [name]
        series = [
            ChartSeries(
                f"{run.name[-NAME_LETTERS:]}: {part[:NAME_LETTERS]}" if len(runs) > 1 else part,
                kinds[run.name] if part == name or len(runs) > 1 else "run1",
                run.metrics.curves[part],
                dots=part.startswith(VALIDATION),
            )
            for run in reversed(runs)
            for part in parts
            if part in run.metrics.curves
        ]
        charts.append(CurveChart(name, series, last_step, marks, log_allowed="loss" in name))
    return charts


def chart_figures(charts: Sequence[CurveChart], columns: int) -> str:
    """The charts side by side, each with its name and, of one run, its newest value."""
    figures = "".join(
        f"<figure><figcaption>{_caption(chart)}</figcaption>{chart_svg(chart, columns)}</figure>"
        for chart in charts
    )
    return f'<div class="charts">{figures}</div>'


def curve_count(charts: Sequence[CurveChart]) -> int:
    """The number of curves, of which each is thinned for itself."""
    return sum(len(chart.series) for chart in charts)


def _caption(chart: CurveChart) -> str:
    name = f"<b>{escaped(MEANINGS.get(chart.name, chart.name), 80)}</b>"
    missing = sum(value is None for one in chart.series for _, value in one.points)
    notes = [f"{plural(missing, 'value')} not a finite number"] if missing else []
    if len(chart.series) == 1:
        values = [value for _, value in chart.series[0].points if value is not None]
        notes.insert(0, f"last {number_text(values[-1])}") if values else None
    elif any(one.dots for one in chart.series) and not all(one.dots for one in chart.series):
        notes.insert(0, "points: held out")
    return name + "".join(f", {note}" for note in notes)


def _rank(name: str) -> tuple[int, str]:
    """The place of a chart: the loss, what was held out, the rate, the speed, all others."""
    order = (
        name == "loss", name.startswith(VALIDATION), name == "lr", name.endswith("_per_second"),
        name == "step_seconds", True,
    )  # fmt: skip
    return order.index(True), name
