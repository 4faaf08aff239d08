"""A JSON object read from a file that somebody else may be writing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_marker(path: Path) -> dict[str, Any]:
    """The object in `path`; empty when there is none, or no file."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
