"""A run's metrics as curves over steps, and their thinning for a drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpc.jobs.run.curve import STALL_SECONDS, STEP_SECONDS, VALIDATION
from hpc.jobs.run.metric_lines import finite_number, metric_lines

MOST_DRAWN = 1e300
"""A larger number is drawn as none: the span of two of them would have no end."""

Point = tuple[float, float | None]
"""(step, value); None where the run had no finite number."""


@dataclass(frozen=True)
class LoggedLine:
    """One line: its wall time, its step, and of a training step the mean seconds per step."""

    at: float
    step: float
    step_seconds: float | None
    evaluation: bool
    stall_seconds: float | None = None
    """Time for which a checkpoint, written then, had held up the steps."""


@dataclass(frozen=True)
class LoggedMetrics:
    """All that was logged: curves by name, and the lines that have a time, in their order."""

    curves: Mapping[str, tuple[Point, ...]]
    lines: tuple[LoggedLine, ...]

    def last(self, name: str) -> float | None:
        """The newest finite value of a curve; None without one."""
        values = (value for _, value in reversed(self.curves.get(name, ())))
        return next((value for value in values if value is not None), None)

    def greatest(self, name: str) -> float | None:
        """The greatest finite value of a curve; None without one."""
        return max((v for _, v in self.curves.get(name, ()) if v is not None), default=None)


def logged_metrics(path: Path) -> LoggedMetrics:
    """The metrics at `path`, none where it cannot be read. Raises nothing."""
    curves: dict[str, list[Point]] = {}
    lines: list[LoggedLine] = []
    with suppress(OSError):
        for line in filter(None, metric_lines(path)):
            for name, value in line.values.items():
                curves.setdefault(name, []).append((line.step, finite(value)))
            if line.at is not None:
                evaluation = any(name.startswith(VALIDATION) for name in line.values)
                seconds = finite(line.values.get(STEP_SECONDS))
                stall = finite(line.values.get(STALL_SECONDS))
                lines.append(LoggedLine(line.at, line.step, seconds, evaluation, stall))
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
    """`value` as a number that can be drawn; None for anything else."""
    number = finite_number(value)
    return number if number is not None and abs(number) < MOST_DRAWN else None
