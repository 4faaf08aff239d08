"""Markers: small JSON files of a run that one process writes while others read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from serving.artifact.durable import replace_file


def write_marker(path: Path, content: dict[str, Any]) -> None:
    """Replace `path` with `content`; a reader sees the old file or the new one, never a part."""
    replace_file(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def read_marker(path: Path) -> dict[str, Any]:
    """What the marker says; empty when there is none, or when it is not one of ours."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
