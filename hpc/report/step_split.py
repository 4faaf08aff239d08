"""Seconds of each part of a step over the run, from the account that a run logs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from conf.page import escaped
from hpc.jobs.run.curve import STALL_SECONDS, STEP_SECONDS
from hpc.report.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    drawing_frame,
    requeue_marks,
)
from hpc.report.logged_metrics import LoggedMetrics
from hpc.report.text import number_text

SECONDS = "_seconds"
OTHER = "other"
MOST_PARTS, MOST_COLUMNS = 12, 120


@dataclass(frozen=True)
class StepSplit:
    """Parts of a step by name, in seconds, at each of `steps`; `other` is the rest of a step."""

    steps: Sequence[float]
    parts: Mapping[str, Sequence[float]]

    @property
    def means(self) -> list[tuple[str, float]]:
        """Mean seconds of each part, over all logged lines."""
        return [(name, sum(values) / len(values)) for name, values in self.parts.items()]

    @property
    def shares(self) -> dict[str, float]:
        """Each part as a share of the whole."""
        whole = sum(seconds for _, seconds in self.means) or 1.0
        return {name: seconds / whole for name, seconds in self.means}


def step_split(metrics: LoggedMetrics) -> StepSplit | None:
    """The split of a run's steps, as far as it logs `..._seconds`; None without."""
    whole = {step: value for step, value in metrics.curves.get(STEP_SECONDS, ()) if value}
    names = [name for name in metrics.curves if is_part(name)][:MOST_PARTS]
    known = {
        name.removesuffix(SECONDS): {
            step: value
            for step, value in metrics.curves[name]
            if step in whole and value is not None and value >= 0
        }
        for name in names
    }
    steps = sorted({step for values in known.values() for step in values})
    if not steps:
        return None
    parts = {name: [values.get(step, 0.0) for step in steps] for name, values in known.items()}
    sums = [sum(values) for values in zip(*parts.values(), strict=True)]
    rest = [max(whole[step] - spent, 0.0) for step, spent in zip(steps, sums, strict=True)]
    return StepSplit(steps, {**parts, OTHER: rest} if any(rest) else parts)


def is_part(name: str) -> bool:
    """True for the curve of a part of a step, as in `forward_seconds`."""
    return name.endswith(SECONDS) and name not in (STEP_SECONDS, STALL_SECONDS)


def split_svg(split: StepSplit, last_step: float, columns: int, marks: Sequence[int] = ()) -> str:
    """The parts above one another over the steps, each column the mean of its lines.

    `marks` are the steps of requeues.
    """
    groups = _grouped(len(split.steps), min(columns, MOST_COLUMNS))
    steps = [split.steps[end - 1] for _, end in groups]
    means = {
        name: [sum(values[begin:end]) / (end - begin) for begin, end in groups]
        for name, values in split.parts.items()
    }
    most = max(sum(column) for column in zip(*means.values(), strict=True))
    across = Scale(0, last_step or 1, LEFT, WIDTH - RIGHT)
    upward = Scale(0, most * 1.05 or 1.0, HEIGHT - BOTTOM, TOP)
    areas, below = [], [0.0] * len(steps)
    for place, (name, values) in enumerate(means.items()):
        above = [low + value for low, value in zip(below, values, strict=True)]
        mean = sum(split.parts[name]) / len(split.steps)
        outline = _outline(steps, below, above, across, upward)
        areas.append(
            f'<polygon class="part{place % 8}" points="{outline}">'
            f"<title>{escaped(name, 60)}, in the mean {number_text(mean)} s</title></polygon>"
        )
        below = above
    frame = "".join([*drawing_frame(across, upward), *requeue_marks(marks, across)])
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="parts of a step over steps">'
        f"{''.join(areas)}{frame}</svg>"
    )


def _outline(
    steps: Sequence[float],
    below: Sequence[float],
    above: Sequence[float],
    across: Scale,
    upward: Scale,
) -> str:
    """There along the upper edge and back along the lower one; a single column gets a width."""
    places = [across.place(step) for step in steps]
    if len(places) == 1:
        places, below, above = [places[0] - 3, places[0]], [*below] * 2, [*above] * 2
    there = [(x, upward.place(value)) for x, value in zip(places, above, strict=True)]
    back = [(x, upward.place(value)) for x, value in zip(places, below, strict=True)]
    return " ".join(f"{x:g},{y:g}" for x, y in [*there, *back[::-1]])


def _grouped(count: int, columns: int) -> list[tuple[int, int]]:
    """(begin, end) of at most `columns` groups of one size, but for the last."""
    size = -(-count // columns)
    return list(_chunks(count, size))


def _chunks(count: int, size: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, count, size):
        yield begin, min(begin + size, count)
