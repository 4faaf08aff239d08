"""An edge on a machine of its own: one session over SSH, a request a line, an answer a line.

The machine's side is `serving.edge_host`; it carries out nothing else for the deploy key.
"""

from __future__ import annotations

import json
import secrets
import threading
from pathlib import Path
from typing import Any

from serving.fleet.errors import Unreachable
from serving.fleet.haproxy.edge import Edge
from serving.fleet.haproxy.edge_link import EdgeError, EdgeUnreachable, LocalEdge
from serving.fleet.inventory import FleetEdge, Host, Ssh
from serving.fleet.ssh.connection import Shell, open_shell

_LONGEST_ANSWER = 8 << 20


def edge_of(edge: FleetEdge) -> Edge:
    """The edge at run time; nothing is opened before it is used, and `close` ends it."""
    if edge.ssh is None:
        return Edge(edge.name, LocalEdge(edge.name, edge.socket, edge.state))
    return Edge(edge.name, RemoteEdge(edge.name, edge.state, edge.address, edge.ssh))


class RemoteEdge:
    """The link to an edge at `address`. Threads take turns on its one session."""

    def __init__(self, name: str, state: Path, address: str, ssh: Ssh) -> None:
        self.name, self.state, self.address, self.ssh = name, state, address, ssh
        self._lock = threading.Lock()
        self._session: _EdgeSession | None = None

    def query(self, command: str) -> str:
        return self._call(do="query", command=command)

    def read_state(self, name: str) -> str:
        return self._call(do="read", name=name)

    def write_state(self, name: str, text: str) -> None:
        self._call(do="write", name=name, text=text)

    def read_config(self) -> str:
        """HAProxy's config as it lies there."""
        return self._call(do="config")

    def install_config(self, text: str) -> None:
        """Have the config checked, put in place, and HAProxy reloaded with it.

        Raises EdgeError where HAProxy refuses it or does not come up; it then has the one before.
        """
        self._call(do="install", text=text)

    def close(self) -> None:
        with self._lock:
            self._end()

    def _call(self, **request: str) -> str:
        with self._lock:
            try:
                if self._session is None:
                    self._session = _EdgeSession.opened(self.name, self.address, self.ssh)
                answer = self._session.answer(request)
            except (OSError, EOFError, Unreachable) as error:
                self._end()
                raise EdgeUnreachable(
                    f"the edge {self.name} does not answer over SSH: {error or 'closed'}"
                ) from error
        if answer.get("ok") is True and isinstance(answer.get("content"), str):
            return str(answer["content"])
        detail = f"the edge {self.name}: {request['do']}: {answer.get('detail')}"
        if answer.get("down") is True:
            raise EdgeUnreachable(f"{detail}. Is HAProxy up there?")
        raise EdgeError(detail)

    def _end(self) -> None:
        if self._session is not None:
            self._session.shell.close()
            self._session = None


class _EdgeSession:
    """An open channel on which the edge's program answers."""

    def __init__(self, shell: Shell, channel: Any, nonce: str) -> None:
        self.shell, self.channel, self.nonce = shell, channel, nonce
        self.stream = channel.makefile("rb")

    @classmethod
    def opened(cls, name: str, address: str, ssh: Ssh) -> _EdgeSession:
        """Connect, and have the program answer once. Raises Unreachable, OSError or EOFError."""
        import paramiko

        shell = open_shell(Host(name, address, "", 0), ssh)
        nonce = secrets.token_hex(16)
        try:
            transport = shell.connection.client.get_transport()
            channel = transport.open_session(timeout=ssh.connect_timeout_s)
            channel.settimeout(ssh.command_timeout_s)
            channel.exec_command(f"lockgate {nonce} session")
            session = cls(shell, channel, nonce)
            session.next_answer()
        except paramiko.SSHException as error:
            shell.close()
            raise OSError(str(error)) from error
        except (OSError, EOFError):
            shell.close()
            raise
        return session

    def answer(self, request: dict[str, str]) -> dict[str, Any]:
        """The answer to one request. Raises OSError or EOFError."""
        self.channel.sendall(json.dumps(request).encode() + b"\n")
        return self.next_answer()

    def next_answer(self) -> dict[str, Any]:
        """The next answer with our nonce; a banner before it is nobody's."""
        mark = f"lockgate-answer {self.nonce} ".encode()
        while line := self.stream.readline(_LONGEST_ANSWER):
            _, found, document = line.partition(mark)
            if found:
                try:
                    answer = json.loads(document)
                except (ValueError, RecursionError):
                    answer = None
                return answer if isinstance(answer, dict) else {"detail": "no answer"}
        raise EOFError(f"its account {self.shell.ssh.user} answers nothing; see etc/edge there")
