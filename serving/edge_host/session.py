"""One session of a controller: a request a line in, an answer a line out, until it goes away.

    python -I -B ETC/edge ETC/edge.json

is the forced command of the account; the client names `lockgate NONCE session`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.edge_host.machine import EdgeHome, carry_out_at_edge, read_edge_home
from serving.edge_host.requests import (
    MAX_TEXT,
    NONCE,
    EdgeHostRefusal,
    answer_line,
    parse_edge_request,
)

_LONGEST_LINE = 8 * MAX_TEXT


def serve_controller(argv: Sequence[str]) -> int:
    """Answer the requests on standard input; returns the exit code."""
    words = os.environ.get("SSH_ORIGINAL_COMMAND", "").split(" ")
    framed = len(words) == 3 and (words[0], words[2]) == ("lockgate", "session")
    if len(argv) != 1 or not framed or not NONCE.fullmatch(words[1]):
        sys.stderr.write("lockgate: this account answers fab and nothing else\n")
        return 2
    home, nonce = read_edge_home(Path(argv[0])), words[1]
    _send(answer_line(nonce, {"ok": True, "content": ""}))
    while line := sys.stdin.readline(_LONGEST_LINE):
        _send(answer_line(nonce, _answer(home, line)))
    return 0


def _answer(home: EdgeHome, line: str) -> dict[str, Any]:
    try:
        request = parse_edge_request(line, home.state)
        return {"ok": True, "content": carry_out_at_edge(home, request)}
    except EdgeHostRefusal as refusal:
        return {"ok": False, "down": False, "detail": str(refusal)}
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        where = getattr(error, "filename", None)
        reason = getattr(error, "strerror", None) or str(error)
        # A socket that nobody listens on is an edge that is down, and may come back.
        down = isinstance(error, ConnectionError | FileNotFoundError | TimeoutError)
        return {"ok": False, "down": down, "detail": f"{where}: {reason}" if where else reason}


def _send(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()
