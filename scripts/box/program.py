"""Parts of the box: programs to run, files to write, ports to hold. Values, no effects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from conf.errors import MISTAKE, LockgateError
from conf.site_checks import host_port

Probe = Callable[[], str]
"""Check that a daemon does its work: returns "", or the reason why it does not."""


class Refusal(LockgateError):
    """The box cannot be brought up as wanted; the message has the fault and the remedy."""

    exit_code = MISTAKE


@dataclass(frozen=True)
class Port:
    """A TCP port that a program listens on, and the config key that a site changes to move it."""

    address: str
    number: int
    key: str

    def __str__(self) -> str:
        return host_port(self.address, self.number)


@dataclass(frozen=True)
class File:
    """A generated file. It is written only where its text, owner or mode differs."""

    path: Path
    text: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644


@dataclass(frozen=True)
class Folder:
    """A folder of the site with the identity that owns it."""

    path: Path
    owner: str = "root"
    group: str = "root"
    mode: int = 0o755


@dataclass(frozen=True)
class Program:
    """One daemon.

    `needs` are programs that must be healthy before this one is started; `before` is then run
    once, just before the start. `files` are the configs that the daemon reads at start: when one
    changes, the daemon is restarted. A program that a serving host's own supervisor runs has that
    one's `socket`, and its name there as `alias`. One that is `on_demand` is started and stopped by
    another program; it is healthy while it is stopped.
    """

    name: str
    argv: tuple[str, ...]
    probe: Probe
    user: str = "root"
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    files: tuple[File, ...] = ()
    needs: tuple[str, ...] = ()
    before: Callable[[], None] | None = None
    socket: Path | None = None
    alias: str = ""
    log: Path | None = None
    stop_wait_s: int = 10
    kills_group: bool = False
    on_demand: bool = False

    @property
    def process_name(self) -> str:
        """Name of the process at the supervisor that runs it."""
        return self.alias or self.name
