"""Ephemeral tritonservers, started as a host starts its own, for the gates of a release.

Each has a model repository of its own, free ports on one address and a process group of its own.
It is always ended: by the `with` block, and by the kernel when this process is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from serving.triton.grpc_client import ModelClient, TritonClient
from serving.triton.server import TritonError, TritonServer

#: The number a package is served under while nobody has given it one.
VERSION = 1


class EphemeralServerError(TritonError):
    """An ephemeral server did not come up; the message has the reason from its log."""


@dataclass(frozen=True)
class EphemeralServer:
    """One server to start: a package folder, served as `model`/VERSION.

    `work` is a folder that this server may fill; `name` stands for it in messages.
    """

    name: str
    package: Path
    model: str
    work: Path


@dataclass(frozen=True)
class RunningServer:
    """A started server: a gRPC client of its one model version, and where its HTTP port is."""

    client: ModelClient
    address: str
    http_port: int


@dataclass
class _Process:
    wanted: EphemeralServer
    server: TritonServer
    popen: subprocess.Popen[bytes]
    log: Path


@contextmanager
def serve_packages(
    servers: list[EphemeralServer], env_dir: Path, address: str, start_timeout_s: float
) -> Iterator[list[RunningServer]]:
    """Start all `servers` side by side; yields them running, their model versions ready.

    Raises EphemeralServerError when one ends or is not ready in `start_timeout_s`.
    """
    with ExitStack() as stack:
        processes: list[_Process] = []
        stack.callback(_end_all, processes)
        for wanted in servers:
            processes.append(_start(wanted, env_dir, address))
        deadline = time.monotonic() + start_timeout_s
        running = []
        for process in processes:
            url = f"{address}:{process.server.grpc_port}"
            server = stack.enter_context(TritonClient(url))
            client = ModelClient(server, process.wanted.model, VERSION)
            _wait(process, client, deadline)
            running.append(RunningServer(client, address, process.server.http_port))
        yield running


def lay_out_repository(package: Path, model: str, repository: Path) -> None:
    """Make a model repository of one package: config.pbtxt and version/ as VERSION.

    A copy: the Python backend writes byte code beside what it loads.
    """
    target = repository / model
    target.mkdir(parents=True)
    shutil.copyfile(package / "config.pbtxt", target / "config.pbtxt")
    shutil.copytree(package / "version", target / str(VERSION), copy_function=shutil.copyfile)


def _start(wanted: EphemeralServer, env_dir: Path, address: str) -> _Process:
    repository = wanted.work / "repository"
    lay_out_repository(wanted.package, wanted.model, repository)
    http, grpc, metrics = _free_ports(address, 3)
    server = TritonServer(
        env_dir=env_dir,
        repository=repository,
        address=address,
        http_port=http,
        grpc_port=grpc,
        metrics_port=metrics,
        models=(wanted.model,),
        exit_timeout_s=2,
    )
    log = wanted.work / "triton.log"
    with log.open("wb") as out:
        # setpriv: SIGTERM from the kernel should this process die without running its clean-up.
        popen = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *server.argv()],
            env=server.environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=wanted.work,
            start_new_session=True,
        )
    return _Process(wanted, server, popen, log)


def _wait(process: _Process, client: ModelClient, deadline: float) -> None:
    """Wait until this version of this model is ready, which the server's own readiness is not."""
    while not client.is_ready():
        name = f"the ephemeral server of the {process.wanted.name}"
        if process.popen.poll() is not None:
            reason = f"ended with code {process.popen.returncode}"
            raise EphemeralServerError(f"{name} {reason}: {_reason(process.log)}")
        if time.monotonic() > deadline:
            raise EphemeralServerError(f"{name} was not ready in time: {_reason(process.log)}")
        time.sleep(0.05)


def _end_all(processes: list[_Process]) -> None:
    """End the whole process groups: a polite signal to all, a bounded wait, then the other one."""
    for signum, patience in ((signal.SIGTERM, 6.0), (signal.SIGKILL, 10.0)):
        running = [process.popen for process in processes if process.popen.poll() is None]
        for popen in running:
            with suppress(ProcessLookupError):
                os.killpg(popen.pid, signum)
        for popen in running:
            with suppress(subprocess.TimeoutExpired):
                popen.wait(patience)


def _free_ports(address: str, count: int) -> list[int]:
    """Ports that are free now. Held open together, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((address, 0))
        return [one.getsockname()[1] for one in sockets]


def _reason(log: Path) -> str:
    """The last lines of Triton's log that name an error, or its last lines."""
    lines = log.read_text("utf-8", "replace").splitlines()
    errors = [line for line in lines if "rror" in line or "failed" in line]
    return " | ".join((errors or lines or ["its log is empty"])[-3:])[-1500:]
