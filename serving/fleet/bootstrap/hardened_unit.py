"""A hardened service of systemd, as text: the settings that all of ours share, and its own.

Exposure by `systemd-analyze security` stays at or below 3.0 for each.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from conf.site_checks import host_port

NODE_EXPORTER = "lockgate-node-exporter.service"
WRITTEN = "# Written by fab bootstrap; edit conf/bootstrap.yaml or conf/site, not this file."

HARDENED = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateTmp=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
""".splitlines()

NO_DEVICES = ("PrivateDevices=yes", "DevicePolicy=closed")
NO_NEW_CODE = "MemoryDenyWriteExecute=yes"
RUNS_AGAIN = ("Restart=always", "RestartSec=1")
NETWORK = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"


def unit_text(
    description: str,
    service: Sequence[str],
    unit: Sequence[str] = (),
    install: str = "multi-user.target",
) -> str:
    """A service: the lines of its sections [Service] and [Unit] beside those that all have, and the
    target that wants it, "" for one that something else starts."""
    wanted = ["[Install]", f"WantedBy={install}"] if install else []
    lines = [WRITTEN, "[Unit]", f"Description={description}", *unit, "[Service]"]
    # Of two lines for one setting the later one counts: a unit may need less than all of it.
    return "\n".join([*lines, *HARDENED, *service, *wanted, ""])


def command_line(words: Sequence[str]) -> str:
    """`words` as ExecStart has them. Raises ValueError for one that a unit cannot carry."""
    return shlex.join(escaped(word) for word in words)


def environment_lines(values: Mapping[str, str]) -> list[str]:
    """The environment of a service. Raises ValueError for what a unit cannot carry."""
    return [f'Environment="{key}={escaped(value)}"' for key, value in sorted(values.items())]


def escaped(text: str) -> str:
    """`text` with what systemd would replace doubled. Raises ValueError for what it cannot hold."""
    if any(letter in text for letter in "\"'\\\n"):
        raise ValueError(f"a unit of systemd cannot carry {text!r}")
    return text.replace("%", "%%").replace("$", "$$")


def metrics_unit(description: str, command: Sequence[str]) -> str:
    """An exporter: it reads what everybody may, under a user that exists while it runs."""
    return unit_text(
        description,
        [
            "DynamicUser=yes",
            f"ExecStart={command_line(command)}",
            *RUNS_AGAIN,
            *NO_DEVICES,
            NO_NEW_CODE,
            f"{NETWORK} AF_NETLINK",
            "UMask=0077",
            "TasksMax=64",
            "MemoryMax=128M",
        ],
        ["After=network-online.target", "Wants=network-online.target"],
    )


def node_exporter_unit(program: str, address: str, port: int) -> str:
    """The exporter of a machine's own metrics, at `address`."""
    command = [program, f"--web.listen-address={host_port(address, port)}"]
    return metrics_unit("Metrics of this machine", command)
