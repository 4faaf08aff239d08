"""The lines of a run's metrics.jsonl as curves over steps, and their thinning for a drawing.

The run wrote the file: a line, a name or a number of any kind costs itself alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.jobs.regular_file import open_regular_file
from hpc.jobs.run.curve import LINE_BYTES, VALIDATION

MOST_BYTES = 256 << 20
MOST_NAMES = 60
"""Curves of one run; later names are left out."""
MOST_STEP = 10**15
LATEST = 2.0**33
"""A later moment, in seconds since 1970, is none."""
NOT_METRICS = ("time", "step")

Point = tuple[float, float | None]
"""(step, value); None where the run had no finite number."""


@dataclass(frozen=True)
class LoggedLine:
    """One line: its wall time, its step, and of a training step the mean seconds per step."""

    at: float
    step: float
    step_seconds: float | None
    evaluation: bool


@dataclass(frozen=True)
class LoggedMetrics:
    """All that was logged: curves by name, and the lines that have a time, in their order."""

    curves: Mapping[str, tuple[Point, ...]]
    lines: tuple[LoggedLine, ...]

    def last(self, name: str) -> float | None:
        """The newest finite value of a curve; None without one."""
        values = (value for _, value in reversed(self.curves.get(name, ())))
        return next((value for value in values if value is not None), None)


def logged_metrics(path: Path) -> LoggedMetrics:
    """The metrics at `path`, none where it cannot be read. Raises nothing."""
    curves: dict[str, list[Point]] = {}
    lines: list[LoggedLine] = []
    for content in _objects(path):
        step = finite(content.get("step"))
        if step is None or not 0 <= step <= MOST_STEP:
            continue
        for name, value in content.items():
            if name in NOT_METRICS or not (value is None or _is_number(value)):
                continue
            if name in curves or len(curves) < MOST_NAMES:
                curves.setdefault(name, []).append((step, finite(value)))
        at = finite(content.get("time"))
        if at is not None and 0 < at < LATEST:
            evaluation = any(name.startswith(VALIDATION) for name in content)
            lines.append(LoggedLine(at, step, finite(content.get("step_seconds")), evaluation))
    ordered = {
        name: tuple(sorted(points, key=lambda point: point[0])) for name, points in curves.items()
    }
    return LoggedMetrics(ordered, tuple(lines))


def thinned(points: Sequence[Point], columns: int) -> tuple[Point, ...]:
    """`points`, ordered by step, with the least and the greatest value of each pixel column.

    At most two per column, the first and the last point among them or beside them; a column in
    which no value is a number stays as one gap. https://skemman.is/handle/1946/15343, section 4.1
    """
    if len(points) <= 2 * columns:
        return tuple(points)
    first, last = points[0][0], points[-1][0]
    width = (last - first) / columns or 1.0
    groups: dict[int, list[int]] = {}
    for place, (step, _) in enumerate(points):
        groups.setdefault(min(int((step - first) / width), columns - 1), []).append(place)
    kept = {0, len(points) - 1}
    for group in groups.values():
        numbers = [(value, place) for place in group if (value := points[place][1]) is not None]
        kept |= {min(numbers)[1], max(numbers)[1]} if numbers else {group[0]}
    return tuple(points[place] for place in sorted(kept))


def finite(value: object) -> float | None:
    """`value` as a finite number; None for anything else."""
    if not _is_number(value):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:  # JSON's integers have no end
        return None
    return number if math.isfinite(number) and abs(number) < 1e300 else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _objects(path: Path) -> Iterator[dict[str, object]]:
    try:
        with open_regular_file(path) as file:
            while file.tell() < MOST_BYTES and (line := file.readline(LINE_BYTES)):
                try:
                    content = json.loads(line.decode(errors="replace"))
                except (ValueError, RecursionError):
                    continue  # torn, or none of ours
                if isinstance(content, dict):
                    yield content
    except OSError:
        return
