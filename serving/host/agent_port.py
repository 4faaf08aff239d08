"""The port where HAProxy reads a host's verdict on itself: one line to whoever connects.

It reads nothing from anybody, and the line is no secret (`agent_verdict`).
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

_SEND_S = 2.0
_BACKLOG = 64


class AgentPort:
    """The port, closed until the first line: to HAProxy a closed one is no news.

    An agent that is started again knows nothing at first, and must neither take a host out nor put
    one in; HAProxy then keeps to what it heard last.
    """

    def __init__(self, endpoint: tuple[str, int]) -> None:
        self.endpoint, self.line = endpoint, ""

    def show(self, line: str) -> None:
        """Answer with `line` from now on. Raises OSError for a port that cannot be had."""
        first, self.line = not self.line, line
        if first:
            threading.Thread(
                target=_serve, args=(self, _listen(self.endpoint)), daemon=True
            ).start()


def _listen(endpoint: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET
    return socket.create_server(endpoint, family=family, backlog=_BACKLOG)


def _serve(port: AgentPort, listening: socket.socket) -> None:
    while True:
        with suppress(OSError):  # a caller that went away; the next one is another
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(_SEND_S)
                connection.sendall(f"{port.line}\n".encode("ascii", "replace"))
