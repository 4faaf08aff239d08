"""The verification of what serves: at every start of Triton, and again and again while it runs.

One process of the verifier's identity. A start of Triton connects to its socket and waits for one
line of JSON, the record of the verification; between starts it verifies by itself.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from contextlib import suppress

from serving.host.home import HostHome
from serving.host.state import exclusive
from serving.host.verification import verify_host

_ANSWER_S = 10.0


def watch(home: HostHome) -> None:
    """Verify now, at each call on the socket, and every `verify_interval_s`; never returns."""
    listening = _listen(home)
    with listening:
        _verify(home, take_out=False)
        due = time.monotonic() + home.verify_interval_s
        while True:
            called, _, _ = select.select([listening], [], [], max(0.0, due - time.monotonic()))
            if called:
                _answer_start(home, listening)
            else:
                _verify(home, take_out=False)
            due = time.monotonic() + home.verify_interval_s


def _listen(home: HostHome) -> socket.socket:
    path = home.verify_socket
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o007)  # the group of the folder may connect: Triton's identity
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    listening.listen(4)
    return listening


def _answer_start(home: HostHome, listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        line = _verify(home, take_out=True)
        connection.settimeout(_ANSWER_S)
        with suppress(OSError):
            # The start that called may have been ended meanwhile; the next one calls again.
            connection.sendall(line.encode() + b"\n")


def _verify(home: HostHome, take_out: bool) -> str:
    with exclusive(home, "verify all"):
        line = json.dumps(verify_host(home, take_out), sort_keys=True)
    print(line, file=sys.stderr, flush=True)
    return line
