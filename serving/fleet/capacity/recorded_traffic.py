"""Traffic as the edges' request log recorded it: JSON lines in, requests of each minute out.

Clients choose most of a line. A line that is none of the log is counted and passed over, and so is
a model of which nothing was ever answered well: its name is a client's invention.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median_low
from urllib.parse import urlsplit

from conf.names import LETTERS, NAME
from serving.fleet.capacity.traffic import DAY_MINUTES, MINUTE_S, TrafficTrace
from serving.fleet.haproxy.edge_config import INFER_PATHS, LOG_LINE_BYTES

LONGEST_DAYS = 366
"""A log is so long at most, around its middle: one wrong clock makes no centuries of zeros."""
LATEST_MS = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp() * 1000)
_INFER = re.compile(INFER_PATHS)


@dataclass(frozen=True)
class RecordedTraffic:
    """The traffic of each region in a log.

    `requests` are those counted; `other` lines are of readiness, of HAProxy itself or of models
    that do not exist, `odd` ones none of this log.
    """

    regions: Mapping[str, TrafficTrace]
    requests: int
    other: int
    odd: int


@dataclass(frozen=True)
class _Line:
    region: str
    model: str
    minute: int
    answered: bool


def recorded_traffic(lines: Iterable[bytes]) -> RecordedTraffic:
    """Inference requests by region, model and minute; a minute without a line has none.

    Every line counts that an edge's log may have, whatever became of its request: a rejected one
    was load, too.
    """
    counts: Counter[tuple[str, str, int]] = Counter()
    answered, other, odd = set(), 0, 0
    for line in lines:
        try:
            found = _parse(line)
        except (ValueError, RecursionError):
            odd += 1
            continue
        if found is None:
            other += 1
            continue
        counts[found.region, found.model, found.minute] += 1
        if found.answered:
            answered.add(found.model)
    every = sum(counts.values())
    known = {key: count for key, count in counts.items() if key[1] in answered}
    near = _near_the_middle(known)
    other += every - sum(known.values())
    odd += sum(known.values()) - sum(near.values())
    return RecordedTraffic(_by_region(near), sum(near.values()), other, odd)


def log_lines(path: Path) -> Iterator[bytes]:
    """The lines of a log; one that is longer than the edge writes, in pieces. Raises OSError."""
    with path.open("rb") as file:
        while line := file.readline(LOG_LINE_BYTES):
            yield line


def _parse(line: bytes) -> _Line | None:
    """One line; None for one about anything but inference. Raises ValueError, RecursionError."""
    if not line.startswith(b"{"):
        return None
    entry = json.loads(line.decode("utf-8", "replace"))
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    path, status = entry.get("path"), entry.get("status")
    region, at_ms = entry.get("region"), entry.get("ts_ms")
    if not (isinstance(path, str) and type(status) is int):
        raise ValueError("path or status is missing")
    if not (type(at_ms) is int and 0 <= at_ms < LATEST_MS):
        raise ValueError("ts_ms is none")
    if not (isinstance(region, str) and NAME.fullmatch(region) and len(region) <= LETTERS):
        raise ValueError("region is none")
    plain = urlsplit(path).path
    if not _INFER.fullmatch(plain):
        return None
    return _Line(region, plain.split("/")[3], at_ms // (1000 * MINUTE_S), 200 <= status < 300)


def _near_the_middle(counts: Mapping[tuple[str, str, int], int]) -> dict[tuple[str, str, int], int]:
    if not counts:
        return {}
    middle = median_low([minute for _, _, minute in counts])
    half = LONGEST_DAYS * DAY_MINUTES // 2
    return {key: count for key, count in counts.items() if abs(key[2] - middle) <= half}


def _by_region(counts: Mapping[tuple[str, str, int], int]) -> dict[str, TrafficTrace]:
    minutes = [minute for _, _, minute in counts]
    models = sorted({model for _, model, _ in counts})
    first, last = min(minutes, default=0), max(minutes, default=-1)
    return {
        region: TrafficTrace(
            first * MINUTE_S,
            {model: tuple(counts.get((region, model, minute), 0) / MINUTE_S
                          for minute in range(first, last + 1))
             for model in models},
        )
        for region in sorted({region for region, _, _ in counts})
    }  # fmt: skip
