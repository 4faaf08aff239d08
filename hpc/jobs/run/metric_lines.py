"""The lines of a run's metrics.jsonl, one JSON object each: the one reader of that file.

The run wrote it: a line, a name or a number of any kind costs itself alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.jobs.regular_file import open_regular_file

LINE_BYTES = 1 << 16
"""Length of a line; a longer one is none of ours."""
MOST_BYTES = 256 << 20
"""Bytes that are read of one file."""
MOST_METRICS = 256
"""Metrics of one run; what a file names beyond them is left out."""
MOST_STEP = 10**15
LATEST = 2.0**33
"""A later moment, in seconds since 1970, is none."""
NOT_METRICS = ("time", "step")


@dataclass(frozen=True)
class MetricLine:
    """One line: its step, its wall time, and its metrics by name."""

    step: int
    at: float | None
    """Seconds since 1970; None for a line without a time."""
    values: Mapping[str, float | None]
    """None where the run had no finite number."""


def metric_lines(path: Path) -> Iterator[MetricLine | None]:
    """The lines at `path` in their order; None for each that is none of a run's.

    A torn last line is being written, or its job was killed: it is left out. Raises OSError.
    """
    names: set[str] = set()
    with open_regular_file(path) as file:
        while file.tell() < MOST_BYTES and (line := file.readline(LINE_BYTES)):
            found = _metric_line(metrics_object(line), names)
            if found or line.endswith(b"\n"):
                yield found


def metrics_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object of one line; None for a torn line, and for one that is no object."""
    try:
        content = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def finite_number(value: object) -> float | None:
    """`value` as a number; None for anything that is none, and for what JSON writes as NaN."""
    if not _is_number(value):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:  # JSON's integers have no end
        return None
    return number if math.isfinite(number) else None


def _metric_line(content: dict[str, Any] | None, names: set[str]) -> MetricLine | None:
    """`names` are the metrics so far, and grow to `MOST_METRICS`."""
    step = finite_number(content.get("step")) if content else None
    if content is None or step is None or not 0 <= step <= MOST_STEP:
        return None
    values: dict[str, float | None] = {}
    for name, value in content.items():
        if name in NOT_METRICS or not (value is None or _is_number(value)):
            continue
        if name in names or len(names) < MOST_METRICS:
            names.add(name)
            values[name] = finite_number(value)
    at = finite_number(content.get("time"))
    return MetricLine(int(step), at if at is not None and 0 < at < LATEST else None, values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
