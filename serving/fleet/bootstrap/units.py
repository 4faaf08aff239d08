"""The systemd units of a serving host, as text: hardened, limited, restarted when they end.

Exposure by `systemd-analyze security` stays at or below 3.0 for each. Triton may map memory that is
writable and executable: what packages bring (onnxruntime, torch) compiles code. Nothing else may.

The verifier restarts Triton without any right of root's: systemd listens on a socket that only the
verifier's group can connect to, and runs one fixed command per connection. A path unit would do as
well, but gives no answer: through the socket the verb knows that the restart is over, or why not.
"""

from __future__ import annotations

from collections.abc import Sequence

from serving.fleet.bootstrap.hardened_unit import (
    NETWORK,
    NO_DEVICES,
    NO_NEW_CODE,
    NODE_EXPORTER,
    RUNS_AGAIN,
    WRITTEN,
    command_line,
    environment_lines,
    metrics_unit,
    node_exporter_unit,
    unit_text,
)
from serving.fleet.bootstrap.layout import NGC, HostLayout
from serving.fleet.bootstrap.restart_request import DONE
from serving.fleet.bootstrap.triton_container import triton_container
from serving.host.state import ANSWERS

WATCH = "lockgate-watch.service"
AGENT = "lockgate-agent.service"
TRITON = "lockgate-triton.service"
DOOR = "lockgate-door.service"
EXPORTER = "lockgate-exporter.service"
RESTART = "lockgate-restart.socket"
RESTART_COMMAND = "lockgate-restart@.service"


def unit_texts(layout: HostLayout) -> dict[str, str]:
    """The text of every unit by its name."""
    return {
        WATCH: _watch(layout),
        AGENT: _agent(layout),
        TRITON: _triton(layout),
        DOOR: _door(layout),
        EXPORTER: _exporter(layout),
        RESTART: _restart_socket(layout),
        RESTART_COMMAND: _restart_command(layout),
        **({NODE_EXPORTER: _node_exporter(layout)} if layout.settings.node_exporter else {}),
    }


def _watch(layout: HostLayout) -> str:
    written = ("packages", "model-repository", "state", "watch")
    return _verifier(layout, "Verification of what this host serves", "watch", written)


def _agent(layout: HostLayout) -> str:
    about = "Golden questions of this host to itself, and its verdict for the edges"
    # It sees that a process of Triton's is gone, which belongs to another user.
    return _verifier(layout, about, "agent", ("state",), ("ProtectProc=default",))


def _verifier(
    layout: HostLayout,
    about: str,
    program: str,
    folders: Sequence[str],
    other: Sequence[str] = (),
) -> str:
    """A program of the verifier's identity, which may write in `folders` only."""
    written = [layout.path(name) for name in folders]
    return unit_text(
        about,
        [
            f"User={layout.verify}",
            *environment_lines(layout.session_environment),
            f"ExecStart={command_line(layout.program(program))}",
            *RUNS_AGAIN,
            f"ReadWritePaths={' '.join(written)}",
            *NO_DEVICES,
            NO_NEW_CODE,
            NETWORK,
            "UMask=0022",
            "TasksMax=64",
            f"MemoryMax={layout.settings.watch_memory_max}",
            *other,
        ],
    )


def _triton(layout: HostLayout) -> str:
    settings, server = layout.settings, layout.triton
    devices = [f"DeviceAllow={device} rw" for device in settings.devices]
    contained = settings.runtime == NGC
    return unit_text(
        "Triton: serves the verified models of this host",
        [
            "Type=exec",
            f"User={layout.triton_user}",
            *(triton_container(layout) if contained else _triton_program(layout)),
            *RUNS_AGAIN,
            # Triton gets SIGTERM and ends its Python stubs itself; what is left then is killed.
            "KillMode=mixed",
            f"TimeoutStopSec={server.exit_timeout_s + 5}",
            # The whole server when a stub was ended for its memory: a dead stub answers nothing.
            "OOMPolicy=kill",
            f"ReadWritePaths={layout.path('run/triton')}",
            *(["DevicePolicy=closed", *devices] if devices else NO_DEVICES),
            NETWORK,
            # Also the regions in /dev/shm that a killed Triton leaves behind.
            "RemoveIPC=yes",
            # The control socket is its group's as well: the host's verifier is in it, nobody else.
            "UMask=0007",
            "LimitNOFILE=65536",
            f"TasksMax={settings.tasks_max}",
            f"MemoryMax={settings.memory_max}",
            *([f"CPUQuota={settings.cpu_quota}"] if settings.cpu_quota else []),
        ],
        [f"Wants={WATCH}", f"After=network-online.target {WATCH}", "Wants=network-online.target",
         "StartLimitIntervalSec=0"],
    )  # fmt: skip


def _triton_program(layout: HostLayout) -> list[str]:
    start = f"ExecStart={command_line(layout.program('start'))}"
    return [*environment_lines(layout.triton.environment()), start]


def _door(layout: HostLayout) -> str:
    command = ["/usr/sbin/haproxy", "-db", "-f", layout.path("etc/door.cfg")]
    return unit_text(
        "The way from the network to Triton's gRPC, for inference only",
        [
            f"User={layout.triton_user}",
            f"ExecStart={command_line(command)}",
            *RUNS_AGAIN,
            *NO_DEVICES,
            NO_NEW_CODE,
            NETWORK,
            "UMask=0077",
            "LimitNOFILE=65536",
            "TasksMax=64",
            "MemoryMax=512M",
        ],
        ["After=network-online.target", "Wants=network-online.target"],
    )


def _exporter(layout: HostLayout) -> str:
    command = ["/usr/bin/python3", "-I", layout.path("etc/host_exporter.py"),
               "--state", layout.path("state/verified.json"),
               "--answers", layout.path(f"state/{ANSWERS}"),
               "--address", layout.address, "--port", str(layout.exporter_port)]  # fmt: skip
    return metrics_unit("Metrics of this host's verification of itself", command)


def _node_exporter(layout: HostLayout) -> str:
    program = layout.path("bin/node_exporter")
    return node_exporter_unit(program, layout.address, layout.node_exporter_port)


def _restart_socket(layout: HostLayout) -> str:
    return "\n".join(
        [
            WRITTEN,
            "[Unit]",
            f"Description=Restart of Triton at the wish of {layout.verify}",
            "[Socket]",
            f"ListenStream={layout.restart_socket}",
            "SocketUser=root",
            f"SocketGroup={layout.verify}",
            "SocketMode=0660",
            "DirectoryMode=0755",
            "Accept=yes",
            "MaxConnections=4",
            "[Install]",
            "WantedBy=sockets.target",
            "",
        ]
    )


def _restart_command(layout: HostLayout) -> str:
    return unit_text(
        "One restart of Triton",
        [
            "Type=oneshot",
            f"ExecStart=/bin/systemctl restart {TRITON}",
            f"ExecStart=/bin/echo {DONE}",
            f"TimeoutStartSec={layout.triton.exit_timeout_s + 30}",
            "StandardInput=socket",
            "StandardOutput=socket",
            "StandardError=socket",
            *NO_DEVICES,
            NO_NEW_CODE,
            "PrivateNetwork=yes",
            "RestrictAddressFamilies=AF_UNIX",
            "UMask=0077",
            "TasksMax=8",
            "MemoryMax=32M",
        ],
        install="",
    )
