"""The newest values in a run's metrics.jsonl."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

TAIL_BYTES = 65536


def last_metrics(path: Path) -> dict[str, Any]:
    """The newest value of each metric in metrics.jsonl; empty when nothing was logged."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return {}
    newest: dict[str, Any] = {}
    for line in lines:
        try:
            content = json.loads(line)
        except ValueError:
            continue  # a line that is being written, or a torn first one
        if isinstance(content, dict):
            newest |= content
    return newest
