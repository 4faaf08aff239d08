"""supervisord (from PyPI) keeps the daemons running where there is no systemd.

Two kinds of config, and the few calls of its XML-RPC that the box makes over a unix socket.
"""

from __future__ import annotations

import hashlib
import shlex
import xmlrpc.client
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from conf.site_schema import Site
from scripts.box.program import Probe, Program

RUNNING = ("RUNNING", "STARTING")

MARK = "LOCKGATE_BOX"
"""Set in every daemon's environment to the site's root, and so in that of all its children: how
a process is known to belong to this site, whoever its parent is by now."""


def quoted(environment: Mapping[str, str]) -> str:
    """The value of `environment=`: quoted, and with `%` doubled as supervisor wants it."""
    pairs = (f'{key}="{_escape(value)}"' for key, value in sorted(environment.items()))
    return ",".join(pairs)


def _escape(text: str) -> str:
    if '"' in text or "\n" in text:
        raise ValueError(f"supervisor cannot carry this value: {text!r}")
    return text.replace("%", "%%")


def socket(site: Site) -> Path:
    return site.paths.run / "supervisord.sock"


def pid_file(site: Site) -> Path:
    return site.paths.run / "supervisord.pid"


def host_socket(folder: Path) -> Path:
    return folder / "run" / "supervisor.sock"


def log_of(site: Site, program: Program) -> Path:
    """Log file of the program's output."""
    return program.log or site.paths.log / f"{program.name}.log"


def site_conf(site: Site, programs: Sequence[Program]) -> str:
    """The box's own supervisord.

    Nothing is started by itself (`up` starts each program when what it needs is healthy), and
    everything that dies is started again. A digest of its config files is part of a program's
    environment: supervisor's own comparison then finds the programs that a changed file concerns.
    """
    lines = [
        "; Written by scripts/site up.",
        "[supervisord]",
        f"pidfile={pid_file(site)}",
        f"logfile={site.paths.log / 'supervisord.log'}",
        f"childlogdir={site.paths.log}",
        f"directory={site.root}",
        "user=root",
        "logfile_maxbytes=5MB",
        "logfile_backups=1",
        "",
        *_control(socket(site), "root:root", "0700"),
    ]
    for program in programs:
        if not program.socket:
            lines += ["", *_program(site, program)]
    return "\n".join(lines) + "\n"


def _program(site: Site, program: Program) -> list[str]:
    digest = hashlib.sha256("\0".join(file.text for file in program.files).encode()).hexdigest()
    environment = {**program.env, "LOCKGATE_CONFIG": digest[:16]}
    return [
        f"[program:{program.name}]",
        f"command={_escape_command(program.argv)}",
        f"user={program.user}",
        f"environment={quoted(environment)}",
        "autostart=false",
        "autorestart=true",
        "startsecs=1",
        "startretries=10",
        f"stopwaitsecs={program.stop_wait_s}",
        f"stopasgroup={str(program.kills_group).lower()}",
        f"killasgroup={str(program.kills_group).lower()}",
        "umask=022",
        "redirect_stderr=true",
        f"stdout_logfile={log_of(site, program)}",
        "stdout_logfile_maxbytes=10MB",
        "stdout_logfile_backups=1",
    ]


def host_conf(
    folder: Path, user: str, group: str, command: str, environment: Mapping[str, str],
    stop_wait_s: int,
) -> str:  # fmt: skip
    """A serving host's supervisord, which runs as `user` and listens to members of `group`."""
    return "\n".join(
        [
            "; Written by scripts/site up; edit conf/site, not this file.",
            "[supervisord]",
            "nodaemon=true",
            f"pidfile={folder / 'run' / 'supervisord.pid'}",
            f"logfile={folder / 'log' / 'supervisord.log'}",
            "logfile_maxbytes=5MB",
            "logfile_backups=1",
            f"childlogdir={folder / 'log'}",
            "",
            *_control(host_socket(folder), f"{user}:{group}", "0770"),
            "",
            "[program:triton]",
            f"command={command.replace('%', '%%')}",
            f"environment={quoted(environment)}",
            # The control socket is its group's as well: the host's verifier is in it, nobody else.
            "umask=007",
            "autostart=true",
            "autorestart=true",
            "startsecs=1",
            "startretries=10",
            f"stopwaitsecs={stop_wait_s}",
            # The Python stubs are children: a Triton that had to be killed takes them with it.
            "killasgroup=true",
            "redirect_stderr=true",
            f"stdout_logfile={folder / 'log' / 'triton.log'}",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=1",
            "",
        ]
    )


def _control(path: Path, owner: str, mode: str) -> list[str]:
    return [
        "[unix_http_server]",
        f"file={path}",
        f"chmod={mode}",
        f"chown={owner}",
        "",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        "",
        "[supervisorctl]",
        f"serverurl=unix://{path}",
    ]


def _escape_command(argv: Sequence[str]) -> str:
    return shlex.join(argv).replace("%", "%%")


def connect(path: Path) -> Any:
    """The `supervisor` namespace of the supervisord at `path`: `startProcess(name, False)`, ..."""
    transport = SupervisorTransport(None, None, f"unix://{path}")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport).supervisor


def processes(path: Path) -> dict[str, dict[str, Any]]:
    """Processes of the supervisord at `path`, by name; empty where none answers."""
    try:
        return {str(info["name"]): info for info in connect(path).getAllProcessInfo()}
    except (OSError, xmlrpc.client.Error):
        return {}


def answers_at(path: Path) -> Probe:
    """Healthy when a supervisord answers at the unix socket `path`."""

    def probe() -> str:
        try:
            state = connect(path).getState()["statename"]
        except (OSError, xmlrpc.client.Error) as error:
            return f"{path}: {error}"
        return "" if state == "RUNNING" else f"{path}: {state}"

    return probe
