"""Tables, lanes and bars of a report as HTML. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from conf.page import duration, escaped
from hpc.jobs.run.operators import OperatorRow
from hpc.report.comparison import MISSING, RankingMetric, parameter_text, parameter_value
from hpc.report.logged_metrics import finite
from hpc.report.reported_run import ReportedRun
from hpc.report.text import number_text
from hpc.report.timeline import KINDS, WITHIN_TRAINING, TimeSpan

MOST_LANES, MOST_OPEN_LANES = 60, 10
MOST_OPERATORS = 100


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """A list of names and values; empty values are left out."""
    items = "".join(
        f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in rows if value
    )
    return f"<dl>{items}</dl>"


def lanes(spans: Mapping[str, Sequence[TimeSpan]]) -> str:
    """A bar per run over the time since its own submit; all bars have one scale."""
    known = {run: found for run, found in spans.items() if found}
    if not known:
        return '<p class="soft">the folder holds no times yet</p>'
    longest = max(found_end(found) - found[0].begin for found in known.values()) or 1.0
    parts = []
    for run, found in list(known.items())[:MOST_LANES]:
        name = f'<div class="lane-name">{escaped(run, 100)}</div>' if len(known) > 1 else ""
        bars = "".join(_bar(span, found[0].begin, longest) for span in _back_to_front(found))
        parts.append(f'{name}<svg height="22" role="img" aria-label="time line">{bars}</svg>')
    more = len(known) - MOST_LANES
    rest = f'<p class="soft">{more} more runs are left out here</p>' if more > 0 else ""
    present = {span.kind for found in known.values() for span in found}
    legend = "".join(f'<span><i class="{kind}"></i>{kind}</span>' for kind in KINDS
                     if kind in present)  # fmt: skip
    end = f"<span>the whole width is {duration(longest)}</span>"
    drawn = f'<div class="lanes">{"".join(parts)}</div>{rest}'
    if len(known) > MOST_OPEN_LANES:
        drawn = f"<details><summary>{len(known)} runs</summary>{drawn}</details>"
    return f'{drawn}<p class="legend">{legend}{end}</p>'


def span_table(spans: Sequence[TimeSpan]) -> str:
    """The time spent with each kind of thing. What lies within training is taken off of it."""
    if not spans:
        return ""
    whole = found_end(spans) - spans[0].begin
    seconds = {kind: sum(one.seconds for one in spans if one.kind == kind) for kind in KINDS}
    training = [one for one in spans if one.kind == "training"]
    seconds["training"] -= sum(
        one.seconds
        for one in spans
        if one.kind in WITHIN_TRAINING and any(t.begin <= one.begin < t.end for t in training)
    )
    rows = [
        f'<tr><td><i class="{kind}"></i>{kind}</td><td class="number">{duration(spent)}</td>'
        f'<td class="number">{100 * spent / whole if whole else 0:.0f}%</td></tr>'
        for kind, spent in seconds.items()
        if any(one.kind == kind for one in spans)
    ]
    left = whole - sum(seconds.values())
    if whole and left > 0.01 * whole:
        rows.append(
            f'<tr><td class="soft">not known</td><td class="number">{duration(left)}</td>'
            f'<td class="number">{100 * left / whole:.0f}%</td></tr>'
        )
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def shares_bar(parts: Sequence[tuple[str, float]]) -> str:
    """One bar of named parts, in seconds, with its legend."""
    whole = sum(seconds for _, seconds in parts) or 1.0
    left, bars, legend = 0.0, [], []
    for place, (name, seconds) in enumerate(parts):
        kind, share = f"part{place % 8}", 100 * seconds / whole
        text = f"{escaped(name, 60)} {1000 * seconds:,.3g} ms, {share:.0f}%"
        bars.append(
            f'<rect class="{kind}" x="{left:.2f}%" width="{share:.2f}%" height="22">'
            f"<title>{text}</title></rect>"
        )
        legend.append(f'<span><i class="{kind}"></i>{text}</span>')
        left += share
    return (
        f'<div class="lanes"><svg height="22" role="img" aria-label="parts of a step">'
        f'{"".join(bars)}</svg></div><p class="legend">{"".join(legend)}</p>'
    )


def operators_table(rows: Sequence[OperatorRow]) -> str:
    """A row per operator of the kernels: what served it, how often, and why not Triton."""
    body = "".join(
        f"<tr><td>{escaped(one.operator, 60)}</td><td>{escaped(one.backend, 80)}</td>"
        f'<td class="number">{escaped(one.calls_text)}</td><td>{escaped(one.reason)}</td></tr>'
        for one in rows[:MOST_OPERATORS]
    )
    head = '<th>operator</th><th>backend</th><th class="number">calls</th><th>reason</th>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def runs_table(
    runs: Sequence[ReportedRun],
    parameters: Sequence[str],
    metric: RankingMetric | None,
    kinds: Mapping[str, str],
    letters: int,
) -> str:
    """A row per run, the best first; the script of the page sorts it by any column."""
    ranked = metric.ranked(runs) if metric else []
    order = [*ranked, *(run for run in runs if run not in ranked)]
    metrics = list(dict.fromkeys([*([metric.name] if metric else []), "loss"]))
    names = ["run", "state", "steps", *metrics, *parameters]
    rows = [
        [
            f'<td><i class="{kinds[run.name]}"></i>{escaped(run.name, max(letters, 48))}</td>',
            _cell(run.state.state, letters),
            _cell(float(run.state.step), letters),
            *(_cell(run.metrics.last(name), letters) for name in metrics),
            *(_cell(parameter_value(run, name), letters) for name in parameters),
        ]
        for run in order
    ]
    of_numbers = [all(_is_number(row[column]) for row in rows) for column in range(len(names))]
    head = "".join(
        f'<th{_class("number", numbers)} title="{escaped(name, 100)}">{escaped(name, letters)}</th>'
        for name, numbers in zip(names, of_numbers, strict=True)
    )
    body = "".join(
        f"<tr{_class('best', bool(ranked) and place == 0)}>{''.join(row)}</tr>"
        for place, row in enumerate(rows)
    )
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def found_end(spans: Sequence[TimeSpan]) -> float:
    """The end of the last span."""
    return max(span.end for span in spans)


def _cell(value: object, letters: int) -> str:
    number = finite(value)
    if number is not None:
        shown = number_text(number) if isinstance(value, float) else parameter_text(value)
        return f'<td class="number" data-n="{number!r}">{escaped(shown, letters)}</td>'
    return f"<td>{escaped(MISSING if value is None else parameter_text(value), letters)}</td>"


def _is_number(cell: str) -> bool:
    return cell.startswith('<td class="number"')


def _class(name: str, given: bool) -> str:
    return f' class="{name}"' if given else ""


def _back_to_front(spans: Sequence[TimeSpan]) -> list[TimeSpan]:
    """What lies within training is drawn over it."""
    return sorted(spans, key=lambda span: span.kind in WITHIN_TRAINING)


def _bar(span: TimeSpan, begin: float, longest: float) -> str:
    left, width = 100 * (span.begin - begin) / longest, 100 * span.seconds / longest
    title = f"{span.label}: {duration(span.seconds)}, {duration(span.begin - begin)} after submit"
    return (
        f'<rect class="{span.kind}" x="{left:.2f}%" width="{max(width, 0.15):.2f}%" height="22">'
        f"<title>{escaped(title)}</title></rect>"
    )
