"""metrics.jsonl: one line per logged step, whatever else is up or down."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from serving.artifact.durable import append_line, replace_file


def rewind_metrics(path: Path, step: int) -> None:
    """Drop lines after `step`: the run goes on from there and would log them a second time."""
    lines = [line for line in read_metrics(path) if line["step"] <= step]
    replace_file(path, "".join(json.dumps(line) + "\n" for line in lines))


def append_metrics(path: Path, line: dict[str, Any]) -> None:
    """Add one line. Numbers that JSON does not have (nan, inf) become null."""
    known = {key: None if _unknown(value) else value for key, value in line.items()}
    append_line(path, json.dumps(known))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a torn last one, of a killed job, is left out."""
    lines = []
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in lines if isinstance(line, dict) and "step" in line]


def _unknown(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
