"""The way to one edge: HAProxy's runtime socket and its state folder, both on this machine."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from serving.artifact.durable import replace_file
from serving.fleet.errors import FleetError, Unreachable

_TIMEOUT_S = 10


class EdgeError(FleetError):
    """The edge refused a command, or did not come to the wanted state."""


class EdgeUnreachable(EdgeError, Unreachable):
    """The edge does not answer on its runtime socket."""


class EdgeLink(Protocol):
    """The way to one edge. Every method raises EdgeError."""

    @property
    def state(self) -> Path:
        """Its state folder, where HAProxy runs."""

    def query(self, command: str) -> str:
        """HAProxy's answer to a runtime command. Raises EdgeUnreachable."""

    def read_state(self, name: str) -> str:
        """A file of the state folder, "" where it is not there."""

    def write_state(self, name: str, text: str) -> None:
        """Put a file into the state folder: whole, and on the disk on return."""

    def close(self) -> None:
        """End what is open; safe to call twice."""


@dataclass(frozen=True)
class LocalEdge:
    """An edge on this machine."""

    name: str
    socket: Path
    state: Path

    def query(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_S)
            try:
                connection.connect(str(self.socket))
                connection.sendall(command.encode() + b"\n")
                chunks = []
                while chunk := connection.recv(65536):
                    chunks.append(chunk)
            except OSError as error:
                raise EdgeUnreachable(
                    f"the edge {self.name} does not answer on {self.socket}: "
                    f"{error.strerror or error}. Is HAProxy up, and may this user write to its "
                    "socket?"
                ) from error
        return b"".join(chunks).decode()

    def read_state(self, name: str) -> str:
        try:
            return (self.state / name).read_text()
        except FileNotFoundError:
            return ""
        except (OSError, ValueError) as error:
            raise self._denied(name, "read", error) from error

    def write_state(self, name: str, text: str) -> None:
        try:
            replace_file(self.state / name, text)
        except OSError as error:
            raise self._denied(name, "written", error) from error

    def close(self) -> None:
        pass

    def _denied(self, name: str, done: str, error: Exception) -> EdgeError:
        return EdgeError(
            f"the edge {self.name}: {self.state / name} cannot be {done} ({error}). "
            "`scripts/site up` makes the folder; it belongs to the deploy identity."
        )
