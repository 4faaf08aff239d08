"""The time lanes and charts of one rollout as inline SVG, all on one time axis. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from conf.page import escaped
from serving.fleet.report.prometheus import TimeSeries
from serving.fleet.report.rollout_record import RolloutRecord
from serving.fleet.report.timeline import HURT, UNDO, LaneSegment, TimeLane, edge_lanes, host_lanes

WIDTH, LEFT, RIGHT = 1000, 150, 18
_ROW, _BAR, _HEAD, _CHART, _EMPTY, _GAP = 24, 16, 26, 92, 22, 16
_LETTER = 6.3
"""Width of a letter in a lane, about."""
_NAME_LETTERS = 20
_TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
_MOST_TICKS = 10
_MARKS = {"healthy": "✓", UNDO: "↩", HURT: "✗"}


@dataclass(frozen=True)
class TimeAxis:
    """Seconds after the start as places across the drawing."""

    seconds: float

    def place(self, after_s: float) -> float:
        """The horizontal place of a moment; those outside are put to the edge."""
        share = min(max(after_s / self.seconds, 0.0), 1.0)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def ticks(self) -> list[float]:
        """Round moments, at most ten of them."""
        step = next((s for s in _TICKS_S if self.seconds / s <= _MOST_TICKS), _TICKS_S[-1])
        return [number * step for number in range(int(self.seconds / step) + 1)]


def timeline_svg(record: RolloutRecord, errors: TimeSeries, p99_s: TimeSeries) -> str:
    """The whole drawing: routing of each edge, steps of each host, failed requests, latency."""
    axis = TimeAxis(max(record.seconds, 0.1))
    parts: list[str] = []
    top = _HEAD
    edges = edge_lanes(record)
    if edges:
        parts.append(_heading("routing at the edges", top))
        top = _lanes(parts, edges, axis, top + _HEAD, "edge")
    hosts, left_out = host_lanes(record)
    for title, lanes in _waves(record, hosts):
        parts.append(_heading(title, top))
        top = _lanes(parts, lanes, axis, top + _HEAD, "host")
    if left_out:
        parts.append(_heading(f"{left_out} more hosts went the same way", top))
        top += _HEAD
    percent = TimeSeries(tuple((at, 100 * share) for at, share in errors.points), errors.missing)
    milliseconds = TimeSeries(tuple((at, 1e3 * s) for at, s in p99_s.points), p99_s.missing)
    for name, unit, series in (
        ("failed requests", "%", percent), ("p99 of answers", "ms", milliseconds),
    ):  # fmt: skip
        parts.append(_heading(f"{name}, {unit}", top))
        height = _CHART if series.points else _EMPTY
        parts += _chart(name, unit, series, record.began, axis, top + _HEAD, height)
        top += _HEAD + height + _GAP
    moments = "".join(_moments(record, axis, top))
    height = top + 24
    label = f"Steps of rollout {record.rollout} over {record.seconds:.1f} seconds"
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escaped(label)}" '
        f'id="timeline">{_grid(axis, top)}{"".join(parts)}{moments}</svg>'
    )


def lanes_svg(title: str, lanes: tuple[TimeLane, ...], seconds: float) -> str:
    """A drawing of lanes alone, over `seconds`."""
    axis = TimeAxis(seconds)
    parts = [_heading(title, _HEAD)]
    bottom = _lanes(parts, lanes, axis, 2 * _HEAD, "host")
    return (
        f'<svg viewBox="0 0 {WIDTH} {bottom + 24}" role="img" aria-label="{escaped(title)}" '
        f'id="timeline">{_grid(axis, bottom)}{"".join(parts)}</svg>'
    )


def _waves(
    record: RolloutRecord, lanes: tuple[TimeLane, ...]
) -> Iterator[tuple[str, tuple[TimeLane, ...]]]:
    """Lanes by wave; those of no wave last."""
    rest = {lane.name: lane for lane in lanes}
    for number, wave in enumerate(record.waves):
        found = tuple(rest.pop(host) for host in wave if host in rest)
        if found:
            yield ("canary" if number == 0 else f"wave {number}"), found
    if rest:
        yield "hosts", tuple(rest.values())


def _lanes(
    parts: list[str], lanes: tuple[TimeLane, ...], axis: TimeAxis, top: int, kind: str
) -> int:
    for lane in lanes:
        parts.append(
            f'<g class="lane {kind}" data-name="{escaped(lane.name)}">'
            f"<title>{escaped(lane.name)}</title>"
            f'<text class="name" x="{LEFT - 24}" y="{top + 12}">'
            f"{escaped(lane.name, _NAME_LETTERS)}</text>"
        )
        if lane.mark:
            mark = _MARKS[lane.mark]
            parts.append(
                f'<text class="mark {lane.mark}" x="{LEFT - 18}" y="{top + 12}">{mark}</text>'
            )
        parts += [_segment(segment, axis, top, kind) for segment in lane.segments]
        parts.append("</g>")
        top += _ROW
    return top + _GAP // 2


def _segment(segment: LaneSegment, axis: TimeAxis, top: int, kind: str) -> str:
    left, right = axis.place(segment.begin), axis.place(segment.end)
    width = max(right - left, 2.5)
    spent = f"{segment.end - segment.begin:.1f} s" if segment.end > segment.begin else ""
    title = f"{segment.label} ({segment.begin:.1f} s{f', {spent}' if spent else ''})"
    inside = ""
    short = segment.label.split(" ")[0]
    texts = (segment.label, short) if kind == "edge" else (short,)
    text = next((one for one in texts if len(one) * _LETTER + 6 < width), "")
    if text:
        inside = f'<text class="in" x="{left + 4}" y="{top + 12}">{escaped(text)}</text>'
    return (
        f'<rect class="seg {segment.kind}" x="{left}" y="{top}" width="{width:.1f}" '
        f'height="{_BAR}" rx="2"><title>{escaped(title)}</title></rect>{inside}'
    )


def _chart(
    name: str, unit: str, series: TimeSeries, began: float, axis: TimeAxis, top: int, height: int
) -> list[str]:
    bottom, right = top + height, WIDTH - RIGHT
    frame = (
        f'<g class="chart" data-name="{escaped(name)}">'
        f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
    )
    if not series.points:
        sentence = f"not recorded: {series.missing}" if series.missing else "not recorded"
        return [
            f'{frame}<text class="missing" x="{LEFT + 8}" y="{top + 12}">'
            f"{escaped(sentence)}</text></g>"
        ]
    highest = max(value for _, value in series.points)
    full = highest * 1.15 or 1.0
    places = [
        f"{axis.place(at - began)},{round(bottom - height * max(value, 0) / full, 1)}"
        for at, value in series.points
    ]
    scale = "".join(
        f'<text class="name" x="{LEFT - 8}" y="{round(bottom - height * value / full + 4, 1)}">'
        f"{value:.3g} {unit}</text>"
        for value in ((0, highest) if highest else (0,))
    )
    return [f'{frame}{scale}<polyline class="line" points="{" ".join(places)}"/></g>']


def _heading(text: str, top: int) -> str:
    return f'<text class="head" x="8" y="{top + 14}">{escaped(text)}</text>'


def _grid(axis: TimeAxis, bottom: int) -> str:
    found = []
    for moment in axis.ticks():
        place = axis.place(moment)
        found.append(
            f'<line class="grid" x1="{place}" x2="{place}" y1="18" y2="{bottom}"/>'
            f'<text class="tick" x="{place}" y="12">{_clock(moment)}</text>'
            f'<text class="tick" x="{place}" y="{bottom + 14}">{_clock(moment)}</text>'
        )
    return "".join(found)


def _moments(record: RolloutRecord, axis: TimeAxis, bottom: int) -> Iterator[str]:
    """Vertical lines at the commit and at the beginning of the undo."""
    found = [("commit", record.commit)] if record.commit is not None else []
    found += [("undo", note.at) for note in record.notes if note.event == "undoing"]
    for name, at in found:
        place = axis.place((at or 0.0) - record.began)
        yield (
            f'<line class="moment {name}" x1="{place}" x2="{place}" y1="18" y2="{bottom}">'
            f"<title>{name}</title></line>"
        )


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
