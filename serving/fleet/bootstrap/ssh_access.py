"""SSH access to a serving host: two accounts, one command each, one forward to inference.

Text that the box and a bare host share: what a session may do, and the lines of authorized_keys.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

LOGIN_SHELL = "/bin/sh"
"""Plain sh reads no file of anybody's before the one command that an account may run."""

MAX_STARTUPS = "MaxStartups 60:30:120"
"""A fan-out opens many sessions at once; sshd's default would drop some at random."""

RECEIVES_ONLY = ("AllowTcpForwarding no",)
"""Options of the account that receives packages, beside those of a session."""


def session_options(forwards: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Options of sshd for a session: a key only, no terminal, no forward but to `forwards`."""
    return [
        "AuthenticationMethods publickey",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "AllowTcpForwarding local",
        "PermitOpen " + " ".join(forwards),
        "AllowStreamLocalForwarding no",
        "AllowAgentForwarding no",
        "X11Forwarding no",
        "PermitTTY no",
        "PermitTunnel no",
        "PermitUserRC no",
        "MaxSessions 40",
        "SetEnv " + " ".join(f'"{key}={value}"' for key, value in environment.items()),
    ]


def authorized_key(public_key: str, command: str, forwards: Sequence[str] = ()) -> str:
    """The rights of the deploy key at one account: to have `command` run, whatever it sends.

    `forwards` are the `address:port` it may forward to. No terminal, no agent, no other forward.
    """
    if '"' in command or "\n" in command:
        raise ValueError(f"authorized_keys cannot carry this command: {command!r}")
    algorithm, body = public_key.split()[:2]
    options = ["restrict", f'command="{command}"']
    if forwards:
        options += ["port-forwarding", *(f'permitopen="{to}"' for to in forwards)]
    return f"{','.join(options)} {algorithm} {body} deploy@lockgate\n"


def receive_command(staging: str) -> str:
    """The one command of the account that receives: rsync, into `staging`, and nothing else."""
    return f"umask 007; exec /usr/bin/rrsync -wo {shlex.quote(staging)}"
