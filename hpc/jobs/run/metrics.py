"""The newest values in a run's metrics.jsonl, one JSON object per line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hpc.jobs.regular_file import open_regular_file
from hpc.jobs.run.metric_lines import metrics_object

TAIL_BYTES = 65536


def last_metrics(path: Path) -> dict[str, Any]:
    """The newest value of each metric in metrics.jsonl; empty when nothing was logged."""
    try:
        with open_regular_file(path) as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).split(b"\n")
    except OSError:
        return {}
    newest: dict[str, Any] = {}
    for line in lines:
        newest |= metrics_object(line) or {}  # nothing of a torn line, or of none of ours
    return newest
