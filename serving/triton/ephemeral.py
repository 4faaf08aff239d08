"""Ephemeral tritonservers, confined, for the gates of a release.

Each has a model repository and a folder for its socket, and serves one package. It starts without a
model: only when it listens, and its folder takes no more files, is the package loaded, so that no
code of a candidate has a place on disk to write to. It is always ended: by the `with` block, and by
the closing of a pipe when this process is killed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from serving.artifact.digest import bytes_sha256
from serving.artifact.verify import plain_files
from serving.os_user import ENVIRONMENT
from serving.triton.confinement import GRPC_PORT, Confinement, ConfinementLimits
from serving.triton.grpc_client import ModelClient, TritonClient
from serving.triton.process_memory import tree_bytes
from serving.triton.server import TritonError

#: The number a package is served under while nobody has given it one.
VERSION = 1
_END_TIMEOUT_S = 20.0
_LOST_TIMEOUT_S = 1.0
_WATCH_S = 0.25


class EphemeralServerError(TritonError):
    """An ephemeral server did not come up; the message has the reason from its log."""


@dataclass(frozen=True)
class EphemeralServer:
    """One server to start: a package folder, served as `model`/VERSION.

    `name` stands for it in messages, as in "candidate".
    """

    name: str
    package: Path
    model: str


@dataclass(frozen=True)
class ServerPatience:
    """Bounds of what a caller waits for and accepts: seconds to start, of one request; MiB."""

    start_timeout_s: float
    request_timeout_s: float
    answer_mib: int


@dataclass
class _Process:
    wanted: EphemeralServer
    folder: Path
    popen: subprocess.Popen[bytes]
    limits: ConfinementLimits
    began: float = field(default_factory=time.monotonic)
    took_mib: int = 0
    """Memory for which it was ended; 0 while it keeps within its limit."""

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def fault(self) -> str:
        """A sentence on why the server is gone; empty while it runs."""
        return "" if self.popen.poll() is None else self._end_reason()

    def fault_soon(self) -> str:
        """`fault` of a server whose connection was lost: its end is a moment away, or not true."""
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(_LOST_TIMEOUT_S)
        return self.fault()

    def _end_reason(self) -> str:
        name, limits = f"the server of the {self.wanted.name}", self.limits
        if self.took_mib:
            limit = f"ephemeral.limits.total_mib={limits.total_mib}"
            return f"{name} was ended: its processes took {self.took_mib} MiB, beyond {limit}"
        if time.monotonic() - self.began >= limits.life_s:
            return f"{name} was ended after ephemeral.limits.life_s={limits.life_s:g}"
        reason = _reason(self.folder / "triton.log")
        return f"{name} ended with code {self.popen.returncode}: {reason}"


@contextmanager
def serve_packages(
    servers: list[EphemeralServer],
    env_dir: Path,
    confinement: Confinement,
    patience: ServerPatience,
) -> Iterator[list[ModelClient]]:
    """Start all `servers` side by side; yields a client of each, its model version ready.

    Raises EphemeralServerError when one ends or is not ready in time, OsUserError and
    ConfinementError when nothing can be confined here.
    """
    confinement.check()
    with ExitStack() as stack:
        processes = [stack.enter_context(_started(one, env_dir, confinement)) for one in servers]
        deadline = time.monotonic() + patience.start_timeout_s
        clients = []
        for process in processes:
            client = stack.enter_context(
                TritonClient(
                    f"unix:{process.run}/grpc.sock:{GRPC_PORT}",
                    patience.request_timeout_s,
                    patience.answer_mib << 20,
                    process.fault_soon,
                )
            )
            _wait(process, client, deadline)
            process.run.chmod(0o750)  # the socket is there: nothing else is ever made beside it
            _load(process, client, deadline, patience.start_timeout_s)
            clients.append(ModelClient(client, process.wanted.model, VERSION))
        yield clients


def lay_out_repository(package: Path, model: str, repository: Path) -> None:
    """Make a model repository of one package: config.pbtxt and version/ as VERSION.

    A copy, whose modes let the group read, whatever those of the package are.
    """
    target = repository / model
    target.mkdir(parents=True)
    shutil.copyfile(package / "config.pbtxt", target / "config.pbtxt")
    for name, path in plain_files(package / "version"):
        file = target / str(VERSION) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, file)


def sweep_folders(folder: Path, model: str) -> None:
    """Remove what servers of `model` left in a confinement's `folder` when their caller was killed.

    To be called by whoever holds the model's release lock.
    """
    for left in folder.glob(f"{_prefix(model)}*"):
        shutil.rmtree(left)


@contextmanager
def _started(
    wanted: EphemeralServer, env_dir: Path, confinement: Confinement
) -> Iterator[_Process]:
    """The started process of one server; ended, and its folder removed, after the block."""
    folder = confinement.folder / f"{_prefix(wanted.model)}{secrets.token_hex(4)}"
    try:
        # The group of these comes from the folder above: its user may read, and write into run/.
        with _umask(0o027):
            folder.mkdir()
            lay_out_repository(wanted.package, wanted.model, folder / "repository")
        with _umask(0o007):
            (folder / "run").mkdir()
        server = confinement.server(env_dir)
        with (folder / "triton.log").open("wb") as log:
            popen = subprocess.Popen(
                confinement.argv(server, folder / "repository", folder / "run"),
                env=ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
            )
        process, over = _Process(wanted, folder, popen, confinement.limits), threading.Event()
        watch = threading.Thread(target=_watch_memory, args=(process, over), daemon=True)
        watch.start()
        try:
            yield process
        finally:
            over.set()
            watch.join()
            _end(popen)
    finally:
        shutil.rmtree(folder)


def _prefix(model: str) -> str:
    """Of the folders of a model's servers: short, as the path of a socket has 107 bytes at most."""
    return f"{bytes_sha256(model.encode())[:12]}-"


def _watch_memory(process: _Process, over: threading.Event) -> None:
    """End the server when its processes together take more than they may."""
    while not over.wait(_WATCH_S) and process.popen.poll() is None:
        taken_mib = tree_bytes(process.popen.pid) >> 20
        if taken_mib > process.limits.total_mib:
            process.took_mib = taken_mib
            _end(process.popen)
            return


def _end(popen: subprocess.Popen[bytes]) -> None:
    """Close the pipe that the server lives by, and wait for its end.

    Raises EphemeralServerError when that does not come.
    """
    if popen.stdin is not None:
        popen.stdin.close()
    try:
        popen.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise EphemeralServerError(
            f"a confined server did not end in {_END_TIMEOUT_S:g} s: end pid {popen.pid} as root"
        ) from None


def _wait(process: _Process, client: TritonClient, deadline: float) -> None:
    """Wait until the server, which has no model yet, takes calls."""
    while not client.is_live():
        if fault := process.fault():
            raise EphemeralServerError(fault)
        if time.monotonic() > deadline:
            reason = _reason(process.folder / "triton.log")
            raise EphemeralServerError(
                f"the server of the {process.wanted.name} did not come up in time: {reason}"
            )
        time.sleep(0.05)


def _load(process: _Process, client: TritonClient, deadline: float, limit_s: float) -> None:
    """Load the package, whose code runs from here on."""
    name, model = process.wanted.name, process.wanted.model
    try:
        client.load(model, timeout_s=max(1.0, deadline - time.monotonic()))
    except TritonError as error:
        late = time.monotonic() >= deadline
        limit = f" within ephemeral.start_timeout_s={limit_s:g}" if late else ""
        raise EphemeralServerError(f"the {name} was not loaded{limit}: {error}") from None
    if not client.is_ready(model, VERSION):
        raise EphemeralServerError(f"the {name} was loaded, and is not ready all the same")


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _reason(log: Path) -> str:
    """The last lines of Triton's log that name an error, or its last lines."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - (64 << 10)))
        lines = file.read().decode("utf-8", "replace").splitlines()
    errors = [line for line in lines if "rror" in line or "failed" in line]
    return " | ".join((errors or lines or ["its log is empty"])[-3:])[-1500:]
