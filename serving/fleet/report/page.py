"""One rollout as one HTML page: whole in itself, without scripts and without a network. Pure.

Every text of the journal is escaped, and the page forbids itself whatever it does not contain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from conf.page import duration, escaped, page_document, utc
from serving.fleet.report.drawing import timeline_svg
from serving.fleet.report.measures import RolloutMeasures
from serving.fleet.report.rollout_record import CONTINUED, OPEN, RolloutRecord
from serving.fleet.report.style import STYLE
from serving.fleet.report.way_back import title_sentence

_LEGEND = (
    ("stage", "package to the host"), ("away", "out of traffic"), ("load", "install and load"),
    ("check", "golden questions"), ("watch", "given traffic, watched"), ("step", "other steps"),
    ("old", "edge: version before"), ("canary", "edge: a share to the canary"),
    ("new", "edge: new version"), ("undo", "undo"),
)  # fmt: skip
_LINES, _CELL = 200, 300
"""Rows of a table and letters of a cell; the journal has all."""
_TONES = {
    "done": "good",
    "prepared": "good",
    "refused": "undo",
    "rolled-back": "undo",
    OPEN: "open",
    CONTINUED: "open",
}


def rollout_page(record: RolloutRecord, found: RolloutMeasures, back: str, written: float) -> str:
    """The page; `back` is the sentence about a rollback, `written` the time of writing."""
    title = title_sentence(record, found.traffic)
    drawing = timeline_svg(record, found.errors, found.p99_s)
    parts = [
        f'<h1 class="{_TONES.get(record.outcome, "hurt")}">{escaped(title)}.</h1>',
        f'<p class="soft">{escaped(_subtitle(record))}</p>',
        *_troubles(record),
        _facts(record, found),
        "<section><h2>Hosts and edges over time</h2>",
        drawing,
        _legend(drawing),
        "</section>",
        *_analyses(record),
        *_notes(record),
        "<section><h2>A rollback now</h2>",
        f'<p id="back">{escaped(back)}</p><p class="soft">As of {escaped(utc(written))}.</p>',
        "</section>",
        *_steps(record),
    ]
    return page_document(title, "".join(parts), STYLE)


def _subtitle(record: RolloutRecord) -> str:
    took = duration(record.seconds)
    end = f"ended after {took}" if record.ended is not None else f"last heard of after {took}"
    return f"{record.action} by {record.who}, began {utc(record.began)}, {end}"


def _facts(record: RolloutRecord, found: RolloutMeasures) -> str:
    traffic = found.traffic
    counted = f"{traffic.requests:,} requests, {traffic.errors:,} failed" if traffic else ""
    by_version = record.traffic() or {}
    shares = ", ".join(
        f"{record.model}/{version}: {one.requests:,}" for version, one in sorted(by_version.items())
    )
    waves = len(record.waves)
    facts = (
        ("who", record.who),
        ("why", record.reason or "no reason was given"),
        ("from", f"{record.model}/{record.previous}" if record.previous else "nothing"),
        ("to", f"{record.model}/{record.version}"),
        ("hosts", f"{len(record.hosts)}{f' in {waves} waves' if waves > 1 else ''}"),
        ("strategy", record.strategy or "-"),
        ("began", utc(record.began)),
        ("in production", _commit(record)),
        ("traffic", f"{counted} ({found.source})" if counted else "not recorded"),
        ("by version", shares or "not recorded"),
        ("digest", record.digest[:16] or "-"),
        ("rollout", record.rollout),
        *((("continues", record.resumes),) if record.resumes else ()),
        *((("continued by", record.continued_by),) if record.continued_by else ()),
    )
    rows = "".join(f"<dt>{name}</dt><dd>{escaped(value)}</dd>" for name, value in facts)
    return f'<dl id="facts">{rows}</dl>'


def _troubles(record: RolloutRecord) -> Iterator[str]:
    if record.outcome_reason and record.outcome != "done":
        yield f'<p class="box undo" id="reason">{escaped(record.outcome_reason)}</p>'
    for name, title, hosts in (
        ("hurt", "For a person to mend:", record.hurt),
        ("undo", "Left out, and without traffic:", record.left_out),
    ):
        items = "".join(
            f"<li><b>{escaped(host)}</b>: {escaped(reason, _CELL)}</li>"
            for host, reason in list(hosts.items())[:_LINES]
        )
        if items:
            yield f'<div class="box {name}">{title}<ul>{items}</ul></div>'


def _commit(record: RolloutRecord) -> str:
    if record.commit is not None:
        return utc(record.commit)
    return "before this" if record.action == "heal" else "never"


def _analyses(record: RolloutRecord) -> Iterator[str]:
    if not record.analyses:
        return
    rows = []
    for one in record.analyses[-_LINES:]:
        percent = "-" if one.percent is None else f"{one.percent:g}%"
        numbers = "; ".join(f"{name} {value}" for name, value in one.numbers)
        rows.append((
            f"{one.at - record.began:.1f} s", percent, one.verdict, " ".join(one.reasons), numbers,
        ))  # fmt: skip
    columns = ("after", "share", "verdict", "reasons", "numbers")
    yield html_table("analysis", "Verdicts on the canary", columns, rows, verdict=2)


def _notes(record: RolloutRecord) -> Iterator[str]:
    rows = [
        (f"{one.at - record.began:.1f} s", one.event, one.who, one.text)
        for one in record.notes[-_LINES:]
    ]
    if rows:
        yield html_table("notes", "Orders and ends", ("after", "event", "who", "reason"), rows)


def _steps(record: RolloutRecord) -> Iterator[str]:
    rows = [
        (f"{step.at - record.began:.1f} s", step.host, step.step, step.detail)
        for step in record.steps[:_LINES]
    ]
    if not rows:
        return
    more = len(record.steps) - len(rows)
    rest = f", the first {_LINES} of {len(record.steps)}" if more else ""
    table = html_table("steps", "", ("after", "host", "step", "detail"), rows)
    yield f"<details><summary>Every step{rest}</summary>{table}</details>"


def html_table(
    name: str,
    title: str,
    columns: Iterable[str],
    rows: Iterable[tuple[str, ...]],
    verdict: int | None = None,
) -> str:
    """A table with the id `name`; the column `verdict` is coloured by its text."""
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = []
    for row in rows:
        cells = []
        for number, cell in enumerate(row):
            tone = f' class="{cell}"' if number == verdict and cell in ("pass", "fail") else ""
            cells.append(f"<td{tone}>{escaped(cell, _CELL)}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    heading = f"<h2>{title}</h2>" if title else ""
    return (
        f'<section>{heading}<table id="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></section>"
    )


def _legend(drawing: str) -> str:
    """The colours that `drawing` has."""
    items = "".join(
        f'<span><i class="{kind}"></i>{text}</span>'
        for kind, text in _LEGEND
        if f'class="seg {kind}"' in drawing
    )
    return f'<p class="legend">{items}<span>┆ the commit, or where the undo began</span></p>'
