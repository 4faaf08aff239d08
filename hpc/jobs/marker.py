"""Markers: small JSON files of a run that one process writes while others read them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_marker(path: Path, content: dict[str, Any]) -> None:
    """Replace `path` with `content`; a reader sees the old file or the new one, never a part."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n", mode=0o644)


def read_marker(path: Path) -> dict[str, Any]:
    """What the marker says; empty when there is none, or when it is not one of ours."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_text(path: Path, text: str, mode: int) -> None:
    """Write a durable file with `mode`: temporary name, fsync, rename."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
