"""The files of this checkout that an edge's machine needs, to be root's below its etc/edge.

sshd runs them with the system's python for the deploy key, and nothing else for it; root's
etc/edge.json has the settings of `serving.edge_host.machine`.
"""

from __future__ import annotations

import json
from pathlib import Path

from serving.edge_host.machine import EdgeHome

_REPO = Path(__file__).resolve().parents[2]
_FILES = ("serving/__init__.py", "serving/artifact/__init__.py", "serving/artifact/durable.py")


def edge_files() -> dict[str, str]:
    """The text of every file by its path below etc/edge."""
    found = sorted((_REPO / "serving/edge_host").glob("*.py"))
    names = [*_FILES, *(f"serving/edge_host/{path.name}" for path in found)]
    texts = {name: (_REPO / name).read_text(encoding="utf-8") for name in names}
    # A folder that Python is given to run starts with this file.
    texts["__main__.py"] = texts.pop("serving/edge_host/__main__.py")
    return texts


def edge_json(home: EdgeHome) -> str:
    """etc/edge.json."""
    return json.dumps({key: str(value) for key, value in vars(home).items()}, indent=2) + "\n"


def edge_key(etc: Path, public_key: str) -> str:
    """The line of authorized_keys for the deploy key: this program, and nothing else."""
    command = f"/usr/bin/python3 -I -B {etc}/edge {etc}/edge.json"
    return f'restrict,command="{command}" {public_key.strip()}\n'
