"""The files of this checkout that an edge's machine needs, to be root's below its etc folder.

sshd runs etc/edge with the system's python for the deploy key, and nothing else for it; root's
etc/edge.json has the settings of `serving.edge_host.machine`. A unit runs etc/edge-log, which shows
HAProxy's request log to Prometheus.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from serving.edge_host.machine import EdgeHome
from serving.edge_host.names import ROUTES

_REPO = Path(__file__).resolve().parents[2]
_FILES = ("serving/__init__.py", "serving/artifact/__init__.py", "serving/artifact/durable.py")
_OBSERVE = "serving/observe"
_LOG_FILES = (
    "serving/__init__.py",
    *(f"{_OBSERVE}/{name}.py" for name in (
        "__init__", "edge_exporter", "collectors/__init__", "collectors/edge_log",
        "collectors/version_series",
    )),
)  # fmt: skip


def edge_files() -> dict[str, str]:
    """The text of every file by its path below etc/edge."""
    found = sorted((_REPO / "serving/edge_host").glob("*.py"))
    names = [*_FILES, *(f"serving/edge_host/{path.name}" for path in found)]
    return _program(names, "serving/edge_host/__main__.py")


def edge_log_files() -> dict[str, str]:
    """The text of every file by its path below etc/edge-log; it wants python3-prometheus-client."""
    return _program(_LOG_FILES, f"{_OBSERVE}/edge_exporter.py")


def edge_log_command(
    etc: Path,
    socket: Path,
    state: Path,
    region: str,
    address: str,
    port: int,
    latency_edges_s: Sequence[float],
) -> list[str]:
    """The command that shows the edge's request log to Prometheus, for a unit of its machine.

    Its account reads HAProxy's `state` folder and owns that of `socket` (the site's
    `paths.edge_log`), whose group is HAProxy's and whose mode is 2710: HAProxy alone may write
    there. `port` is the site's `ports.release_exporter`, at the edge's own `address`.
    """
    return [
        *("/usr/bin/python3", "-I", "-B", str(etc / "edge-log")),
        *("--socket", str(socket), "--routes", str(state / ROUTES), "--region", region),
        *("--address", address, "--port", str(port)),
        *("--latency-edges-s", *(f"{edge:g}" for edge in latency_edges_s)),
    ]


def _program(names: Sequence[str], main: str) -> dict[str, str]:
    texts = {name: (_REPO / name).read_text(encoding="utf-8") for name in names}
    # A folder that Python is given to run starts with this file.
    texts["__main__.py"] = texts.pop(main)
    return texts


def edge_json(home: EdgeHome) -> str:
    """etc/edge.json."""
    return json.dumps({key: str(value) for key, value in vars(home).items()}, indent=2) + "\n"


def edge_key(etc: Path, public_key: str) -> str:
    """The line of authorized_keys for the deploy key: this program, and nothing else."""
    command = f"/usr/bin/python3 -I -B {etc}/edge {etc}/edge.json"
    return f'restrict,command="{command}" {public_key.strip()}\n'
