"""Runs as one HTML page: whole in itself, without a network, read without a script. Pure.

A run chooses its names, values and metrics: all are escaped, and the page forbids itself whatever
it does not contain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from conf.page import escaped, page_document, utc
from hpc.jobs.run.states import FAILED, FINISHED
from hpc.report.charts import chart_figures, curve_charts, curve_count
from hpc.report.comparison import RankingMetric, differing_parameters, ranking_metric, run_kinds
from hpc.report.notes import ReportNotes
from hpc.report.parallel_coordinates import parallel_svg
from hpc.report.reported_run import ReportedRun
from hpc.report.sentences import title_sentence, waste_notes
from hpc.report.step_split import split_svg, step_split
from hpc.report.style import SORT_SCRIPT, STYLE
from hpc.report.tables import facts, lanes, operators_table, runs_table, shares_bar, span_table
from hpc.report.text import plural
from hpc.report.timeline import run_spans

LIMIT_BYTES = 2_000_000
DETAILS = ((450, 60), (150, 40), (40, 24), (12, 12))
"""Pixel columns of a curve and letters of a cell, from the page at its best to the smallest one."""
MOST_POINTS = 60_000


def report_page(runs: Sequence[ReportedRun], notes: ReportNotes, written: float) -> str:
    """The page of at least one run, below `LIMIT_BYTES`; `written` is the time of writing."""
    text = ""
    for columns, letters in DETAILS:
        text = _page(runs, notes, written, columns, letters)
        if len(text.encode()) < LIMIT_BYTES:
            break
    return text


def _page(
    runs: Sequence[ReportedRun], notes: ReportNotes, written: float, columns: int, letters: int
) -> str:
    several = len(runs) > 1
    metric = ranking_metric(runs) if several else None
    kinds = run_kinds(runs, metric)
    charts = curve_charts(runs, kinds)
    columns = min(columns, max(MOST_POINTS // (2 * max(curve_count(charts), 1)), 12))
    title = title_sentence(runs)
    parts = [
        f'<h1 class="{_tone(runs)}">{escaped(title, 400)}.</h1>',
        f'<p class="soft">{escaped(_subtitle(runs, written))}</p>',
        *_troubles(runs),
        *(_one_head(runs[0]) if not several else ()),
        *(_comparison(runs, metric, kinds, letters) if several else ()),
        "<section><h2>Time line</h2>",
        lanes({run.name: run_spans(run.times, run.metrics.lines, run.state.steps) for run in runs}),
        *(_one_spans(runs[0]) if not several else ()),
        "</section>",
        *(_step_split(runs[0], columns) if not several else ()),
        *(_operators(runs[0]) if not several else ()),
        "<section><h2>Over the steps</h2>",
        *_curve_legend(runs, kinds),
        chart_figures(charts, columns) if charts else '<p class="soft">nothing was logged yet</p>',
        "</section>",
        *_waste(runs, notes),
        *_repeats(runs, notes),
        *(_config(runs[0], letters) if not several else ()),
    ]
    return page_document(title, "".join(parts), STYLE, SORT_SCRIPT if several else "")


def _tone(runs: Sequence[ReportedRun]) -> str:
    states = {run.state.state for run in runs}
    if states == {FINISHED}:
        return "good"
    return "hurt" if states & {FAILED} else "open"


def _subtitle(runs: Sequence[ReportedRun], written: float) -> str:
    users = sorted({run.record.user for run in runs} - {""})
    tasks = sorted({run.state.task for run in runs})
    return (
        f"{plural(len(tasks), 'task')} {', '.join(tasks[:6])}, submitted by "
        f"{', '.join(users[:6]) or 'nobody known'}; read {utc(written)}"
    ).replace("1 task ", "task ")


def _troubles(runs: Sequence[ReportedRun]) -> Iterator[str]:
    """The addition of a run's state. Of one run, it stands in the title unless it finished."""
    told = [
        run for run in runs if run.state.detail and (len(runs) > 1 or run.state.state == FINISHED)
    ]
    items = "".join(
        f"<li><b>{escaped(run.name, 100)}</b>: {escaped(run.state.detail)}</li>"
        for run in told[:40]
    )
    more = f"<li>and {len(told) - 40} more</li>" if len(told) > 40 else ""
    if items:
        yield f'<div class="box">From the runs<ul>{items}{more}</ul></div>'


def _one_head(run: ReportedRun) -> Iterator[str]:
    """Facts and digests of a run."""
    state, spec = run.state, run.spec
    rows = [
        ("submitted", utc(run.times.submitted) if run.times.submitted is not None else ""),
        ("ended", utc(run.times.ended) if run.times.ended is not None else ""),
        ("attempts", str(state.attempt or "")),
        ("job", state.job_id and f"{state.job_id}, state from {state.source}"),
    ]
    if spec is not None:
        source = spec.source
        dirty = ", with edits that are not committed" if source.dirty else ""
        commit = f", commit {source.commit[:12]}{dirty}" if source.commit else dirty
        rows += [
            ("dataset", f"{spec.dataset.name}@{spec.dataset.digest[:16]}"),
            ("spec", spec.digest[:16]),
            ("source", f"{source.digest[:16]}{commit}"),
            ("project", spec.project.digest[:16] if spec.project else ""),
            ("environment", f"{spec.environment.digest[:16]}, Python {spec.environment.python}"),
        ]
    rows.append(("folder", str(run.folder)))
    yield facts(rows)


def _one_spans(run: ReportedRun) -> Iterator[str]:
    yield span_table(run_spans(run.times, run.metrics.lines, run.state.steps))


def _comparison(
    runs: Sequence[ReportedRun],
    metric: RankingMetric | None,
    kinds: Mapping[str, str],
    letters: int,
) -> Iterator[str]:
    parameters = differing_parameters(runs)
    best = ""
    if metric:
        direction = "more" if metric.higher_is_better else "less"
        best = f"Ranked by the newest {metric.name}, {direction} is better. "
    differ = "" if parameters else "The runs have the same config. "
    yield (
        f'<section><h2>Runs</h2><p class="soft">{escaped(best + differ)}'
        "A click on a column's name sorts by it.</p>"
    )
    yield runs_table(runs, parameters, metric, kinds, letters)
    yield "</section>"
    if metric and parameters:
        yield f"<section><h2>Parameters against {escaped(metric.name, 80)}</h2>"
        yield parallel_svg(runs, parameters, metric, kinds)
        yield "</section>"


def _curve_legend(runs: Sequence[ReportedRun], kinds: Mapping[str, str]) -> Iterator[str]:
    if len(runs) > 1:
        of_a_run = all(kind.startswith("run") for kind in kinds.values())
        names = (
            [(kinds[run.name], run.name) for run in runs]
            if of_a_run
            else [("rank0", "the best fifth"), ("rank2", "middle"), ("rank4", "the last fifth")]
        )
        items = "".join(f'<span><i class="{kind}"></i>{escaped(name, 100)}</span>'
                        for kind, name in names)  # fmt: skip
        yield f'<p class="legend">{items}</p>'
    elif runs[0].resumed_steps:
        steps = ", ".join(f"{step:,}" for step in runs[0].resumed_steps[:20])
        yield f'<p class="soft">┆ resumed after step {steps}</p>'


def _step_split(run: ReportedRun, columns: int) -> Iterator[str]:
    split = step_split(run.metrics)
    if split is None:
        return
    yield "<section><h2>The parts of a step</h2>"
    yield shares_bar(split.means)
    if len(split.steps) > 1:
        caption = "<figcaption><b>seconds</b> of a step, over the steps</figcaption>"
        last = max(run.state.steps, split.steps[-1])
        drawn = split_svg(split, last, columns, run.resumed_steps)
        yield f'<div class="charts"><figure>{caption}{drawn}</figure></div>'
    yield "</section>"


def _operators(run: ReportedRun) -> Iterator[str]:
    if run.operators:
        yield f"<section><h2>Operators</h2>{operators_table(run.operators)}</section>"


def _waste(runs: Sequence[ReportedRun], notes: ReportNotes) -> Iterator[str]:
    items = []
    for run in runs:
        name = f"<b>{escaped(run.name, 100)}</b> " if len(runs) > 1 else ""
        items += [
            f"<li>{name}{escaped(one)}</li>"
            for one in waste_notes(run, notes.memory_bytes.get(run.name))
        ]
    if items:
        listed = f"<ul>{''.join(items[:400])}</ul>"
        if len(runs) > 4:
            listed = f"<details><summary>{len(items)} notes</summary>{listed}</details>"
        yield f"<section><h2>Asked and used</h2>{listed}</section>"


def _repeats(runs: Sequence[ReportedRun], notes: ReportNotes) -> Iterator[str]:
    lines = [notes.commands[run.name] for run in runs if run.name in notes.commands]
    if not lines:
        return
    commit = ""
    if len(runs) == 1 and (spec := runs[0].spec) is not None and spec.source.commit:
        edits = " and edits that are not committed" if spec.source.dirty else ""
        commit = f"# its code: commit {spec.source.commit[:12]}{edits}\n"
    text = "\n".join(escaped(line, 4000) for line in dict.fromkeys(lines[:40]))
    yield (
        f'<section><h2>To repeat it</h2><pre id="repeat">{escaped(commit)}{text}</pre></section>'
    )


def _config(run: ReportedRun, letters: int) -> Iterator[str]:
    rows = "".join(
        f"<tr><td>{escaped(key, 100)}</td><td>{escaped(value, 4 * letters)}</td></tr>"
        for key, value in sorted(run.config.items())[:500]
    )
    if rows:
        yield (
            f"<details><summary>Every setting, {len(run.config)}</summary>"
            f'<div class="wide"><table><tbody>{rows}</tbody></table></div></details>'
        )
