"""Files of a package pushed into a host's staging by rsync: what is equal there does not travel."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from serving.fleet.errors import FleetError
from serving.fleet.inventory import Host, Ssh
from serving.fleet.shipment import Shipment
from serving.fleet.ssh.connection import Shell
from serving.fleet.ssh.ssh_client import ssh_command

_NO_HOME = "Could not chdir to home directory"
"""Printed by sshd in each session of an account without a home, whatever else happens."""


def push(shell: Shell, shipment: Shipment, paths: Sequence[str], limit_kib_s: int) -> int:
    """Send these files of a package; returns the bytes that went. Raises FleetError."""
    name = f"{shipment.model}-{shipment.version}"
    argv = rsync_argv(shipment.path, shell.host, shell.ssh, name, limit_kib_s)
    done = subprocess.run(argv, capture_output=True, text=True, input="\n".join([*paths, ""]))
    if done.returncode != 0:
        reason = rsync_reason(done.stderr, done.returncode)
        raise FleetError(
            f"sending to {argv[-1]} failed: {reason}. Nothing was activated there, and what "
            "arrived is kept: typed again, it goes on."
        )
    for line in done.stdout.splitlines():
        if line.startswith("Total bytes sent:"):
            return int(line.split(":")[1].replace(",", "").strip())
    return 0


def rsync_argv(source: Path, host: Host, ssh: Ssh, name: str, kib_s: int) -> list[str]:
    """Send the files named on standard input from a package into the folder `name` of staging.

    By checksum, not by time and size: a part of an interrupted transfer may share both. Neither
    times nor modes are sent: what is not ours there stays as it is.
    """
    address = f"[{host.address}]" if ":" in host.address else host.address
    return [
        "rsync", "--files-from=-", "--links", "--checksum", "--partial",
        # New folders are their group's to clear; without --perms nothing that is there changes.
        "--chmod=D775,F664", "--timeout=60", "--stats",
        *([f"--bwlimit={kib_s}"] if kib_s else []),
        "--rsh", ssh_command(ssh),
        "--", f"{source}/", f"{ssh.transfer_user}@{address}:{name}/",
    ]  # fmt: skip


def rsync_reason(stderr: str, status: int) -> str:
    """The first line of a failed rsync that is about it."""
    lines = [line for line in stderr.strip().splitlines() if _NO_HOME not in line]
    return lines[0] if lines else f"status {status}"
