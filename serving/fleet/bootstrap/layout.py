"""One serving host as its bootstrap wants it: folder, accounts, addresses and limits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from conf.site_checks import check_absolute, check_at_least_one, host_port
from conf.site_daemons import EdgeSettings
from conf.site_schema import Site
from serving.triton.server import TritonServer

NGC = "ngc"
RUNTIMES = ("wheelhouse", NGC)
_IMAGE = re.compile(
    r"[a-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9._-]+)+(:[A-Za-z0-9._-]{1,128})?@sha256:[0-9a-f]{64}"
)
IN_IMAGE = Path("/opt/tritonserver")
"""The folder of Triton in NVIDIA's images."""
CONTROL_PORT = 8001
"""Triton adds it to the path of its control socket, which has no port."""


@dataclass(frozen=True)
class BootstrapSettings:
    """Settings of `conf/bootstrap.yaml`."""

    root: Path
    """Folder on the host that holds all of Lockgate but units and sshd's settings."""
    python: str
    """Version of python3 on the hosts, that the wheels are for, such as 3.11."""
    packages: tuple[str, ...]
    """Packages of the distribution that a host needs."""
    lock: Path
    """List of the serving environment's packages, each pinned."""
    wheelhouse: Path
    """Folder on the control host with the wheels of the serving environment."""
    user: str
    """Account on the host that bootstraps it: root, or one with sudo without a password."""
    key: Path
    """SSH key of that account."""
    fetch_keys: Path
    """Folder on the control host with the keys by which hosts fetch from each other."""
    node_exporter: str
    """Program on the control host that every host gets and runs; "" for none."""
    runtime: str
    """Triton of a host: `wheelhouse`, a wheel of its serving environment, or `ngc`, a container."""
    image: str
    """Image of the container, by its digest; "" for a wheelhouse."""
    devices: tuple[str, ...]
    """Device files that Triton may use."""
    memory_max: str
    """Memory of Triton and its models, as systemd has it: 80% or 24G."""
    watch_memory_max: str
    """Memory of the verification."""
    cpu_quota: str
    """Share of the processors, 400% for four; "" for all."""
    tasks_max: int
    """Threads and processes of Triton and its models."""
    journal_max_mib: int
    """Logs on a host's disk; the oldest go first."""
    start_timeout_s: int
    """Seconds that the host has at the end to serve."""

    def __post_init__(self) -> None:
        check_absolute("root", self.root)
        check_absolute("wheelhouse", self.wheelhouse)
        numbers = {"tasks_max": self.tasks_max, "journal_max_mib": self.journal_max_mib}
        check_at_least_one({**numbers, "start_timeout_s": self.start_timeout_s})
        if self.runtime not in RUNTIMES:
            raise ValueError(f"runtime={self.runtime}: is none of {', '.join(RUNTIMES)}")
        if self.runtime == NGC and not _IMAGE.fullmatch(self.image):
            raise ValueError(
                f"image={self.image}: runtime=ngc wants an image by its digest, as in "
                "nvcr.io/nvidia/tritonserver:25.01-py3@sha256:... (64 letters of 0-9a-f): a tag "
                "alone can be another image tomorrow"
            )
        if any(letter.isspace() or letter in "\"'\\$%" for letter in str(self.root)):
            raise ValueError(f"root={self.root}: has a letter that a unit of systemd cannot carry")


@dataclass(frozen=True)
class HostLayout:
    """`name` at `address`; the rest is the same on every host of a site."""

    name: str
    address: str
    settings: BootstrapSettings
    verify: str
    receive: str
    triton_user: str
    serving_group: str
    http_port: int
    grpc_port: int
    agent_port: int
    metrics_port: int
    exporter_port: int
    node_exporter_port: int
    exit_timeout_s: int
    http_threads: int
    verify_interval_s: int
    golden_interval_s: int
    golden_timeout_s: int
    approvals: int
    max_instances: int
    edge: EdgeSettings

    def path(self, name: str) -> str:
        """A path below the host's folder."""
        return str(PurePosixPath(self.settings.root, name))

    @property
    def environment(self) -> str:
        """The serving environment on the host."""
        return self.path("env")

    @property
    def restart_socket(self) -> str:
        """The socket that restarts Triton."""
        return "/run/lockgate/restart.sock"

    @property
    def inference(self) -> str:
        """`address:port`: all that a deployment reaches through SSH."""
        return host_port(self.address, self.http_port)

    @property
    def session_environment(self) -> dict[str, str]:
        """The environment of the host's own programs."""
        path = f"{self.environment}/bin:/usr/bin:/bin"
        return {"PATH": path, "HOME": "/nonexistent", "LANG": "C.UTF-8"}

    def program(self, name: str) -> tuple[str, ...]:
        """The command line of one of the host's own programs: `command`, `watch`, `agent`, `start`
        or `prepare`."""
        python = f"{self.environment}/bin/python"
        return (python, "-I", "-B", self.path("etc/host"), str(self.settings.root), name)

    @cached_property
    def triton(self) -> TritonServer:
        """The host's Triton. It loads every model of its repository at start: a host that was
        rebooted serves what it served."""
        return TritonServer(
            env_dir=Path(self.environment),
            repository=Path(self.path("model-repository")),
            address=self.address,
            http_port=self.http_port,
            grpc_port=CONTROL_PORT,
            metrics_port=self.metrics_port,
            models=("*",),
            exit_timeout_s=self.exit_timeout_s,
            exit_on_error=False,
            http_threads=self.http_threads,
            grpc_address=f"unix:{self.path('run/triton/grpc.sock')}",
            python_version=self.settings.python,
            installed_at=IN_IMAGE if self.settings.runtime == NGC else None,
        )


def host_layout(site: Site, settings: BootstrapSettings, host: str) -> HostLayout:
    """The layout of `host`, which must be one of `site.hosts`."""
    return HostLayout(
        name=host,
        address=site.hosts[host].address,
        settings=settings,
        verify=site.users.verify,
        receive=site.users.host,
        triton_user=site.users.triton,
        serving_group=site.groups.serving,
        http_port=site.ports.triton_http,
        grpc_port=site.ports.triton_grpc,
        agent_port=site.ports.host_agent,
        metrics_port=site.ports.triton_metrics,
        exporter_port=site.ports.host_exporter,
        node_exporter_port=site.ports.node_exporter,
        exit_timeout_s=site.triton.exit_timeout_s,
        http_threads=site.triton.http_threads,
        verify_interval_s=site.triton.verify_interval_s,
        golden_interval_s=site.triton.golden_interval_s,
        golden_timeout_s=site.triton.golden_timeout_s,
        approvals=site.signing.approvals,
        max_instances=site.triton.max_instances,
        edge=site.edge,
    )
