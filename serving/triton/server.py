"""The command line and environment of one tritonserver from the `nvidia-pytriton` wheel.

The box's serving hosts and the release's ephemeral servers start Triton through this one
description, so what a release was validated on is what a host runs.

    server = TritonServer(env_dir=Path(".venv-serve"), repository=repo, address="127.0.0.11",
                          http_port=18000, grpc_port=18001, metrics_port=18002)
    subprocess.Popen(server.argv(), env=server.environment())
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from conf.errors import LockgateError
from serving.artifact.durable import replace_file

#: What no client of the HTTP port may reach: Triton answers these with 403. gRPC carries the same
#: operations, and is guarded by where it listens.
RESTRICTED = "model-repository,model-config,shared-memory,trace,logging"
CONTROL_HEADER = "lockgate-control"
#: The value that would open them. It begins with a space, which every parser takes from the value
#: of a header (RFC 9110, 5.5): no request can carry it, so that it need not be a secret. A secret
#: could be read by every user of the machine, in the command line of the server.
UNCARRIABLE = " none"


class TritonError(LockgateError, RuntimeError):
    """Triton refused, failed or did not come to the wanted state; the message is a sentence."""


class TritonNotInstalled(LockgateError, RuntimeError):
    """The serving environment lacks Triton or the Python stub; run scripts/setup."""


@dataclass(frozen=True)
class TritonServer:
    """One tritonserver, not yet started.

    `env_dir` is the serving virtual environment, `repository` the model repository. `models` are
    loaded at start: names, or `("*",)` for every model in the repository. Model control is
    explicit: nothing else is loaded until a client loads it by gRPC on `address`.

    `grpc_address` is where gRPC listens when that is not `address`: `unix:/run/grpc.sock`, a socket
    in a folder whose mode decides who may call. With `http_port` None there is no HTTP and there
    are no metrics: beside a unix socket, then, no TCP at all.

    A model that fails to load at start does not stop the server when `exit_on_error` is False: a
    host must come back with the models that are good.

    With `installed_at` it is the Triton of an image, in that folder there, and its Python the
    image's own. With `python_version` (3.11) the environment is one of another machine, of that
    Python: nothing is looked for on this one.
    """

    env_dir: Path
    repository: Path
    address: str
    http_port: int | None
    grpc_port: int
    metrics_port: int | None
    models: tuple[str, ...] = ()
    exit_timeout_s: int = 30
    exit_on_error: bool = True
    http_threads: int = 4
    grpc_address: str = ""
    python_version: str = ""
    installed_at: Path | None = None

    @property
    def site_packages(self) -> Path:
        """The folder where the wheel is installed in `env_dir`. Raises TritonNotInstalled."""
        if self.python_version:
            return Path(self.env_dir, "lib", f"python{self.python_version}", "site-packages")
        found = sorted(Path(self.env_dir).glob("lib/python3.*/site-packages/pytriton"))
        if not found:
            raise TritonNotInstalled(
                f"no nvidia-pytriton in {self.env_dir}: run scripts/setup to make it"
            )
        return found[-1].parent

    @property
    def home(self) -> Path:
        """The tritonserver folder, of the wheel or of an image: bin/, backends/."""
        if self.installed_at is not None:
            return self.installed_at
        return self.site_packages / "pytriton" / "tritonserver"

    @property
    def shm_prefix(self) -> str:
        """The prefix of the names of this server's regions in /dev/shm."""
        return f"lockgate_{self.address}_{self.http_port}_"

    @property
    def grpc_target(self) -> str:
        """The target that a gRPC client connects to; Triton adds the port to a socket's path."""
        return f"{self.grpc_address or self.address}:{self.grpc_port}"

    def argv(self) -> list[str]:
        """The command line. Raises TritonNotInstalled."""
        stub = self.home / "backends" / "python" / "triton_python_backend_stub"
        if not self.python_version and not stub.exists():
            raise TritonNotInstalled(f"{stub} is missing: run scripts/setup, which puts it there")
        return [
            str(self.home / "bin" / "tritonserver"),
            f"--id={self.address}",
            f"--model-repository={self.repository}",
            f"--backend-directory={self.home / 'backends'}",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in self.models),
            # With strict readiness one failed load keeps the whole server "not ready" for good.
            "--strict-readiness=false",
            f"--exit-on-error={str(self.exit_on_error).lower()}",
            f"--exit-timeout-secs={self.exit_timeout_s}",
            *self._http_argv(),
            f"--grpc-address={self.grpc_address or self.address}",
            f"--grpc-port={self.grpc_port}",
            # A killed Triton leaves its shared memory behind; the name is that of its server.
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
            "--log-format=ISO8601",
        ]

    def _http_argv(self) -> list[str]:
        if self.http_port is None:
            return ["--allow-http=false", "--allow-metrics=false"]
        return [
            f"--http-address={self.address}",
            f"--http-port={self.http_port}",
            f"--http-thread-count={self.http_threads}",
            f"--http-restricted-api={RESTRICTED}:{CONTROL_HEADER}={UNCARRIABLE}",
            f"--metrics-address={self.address}",
            f"--metrics-port={self.metrics_port}",
            "--metrics-config=summary_latencies=true",
        ]

    def environment(self) -> dict[str, str]:
        """The whole environment: nothing of the caller's leaks into the models.

        The Python stub finds its interpreter's packages through the first `python3` on PATH, so
        the serving environment must come first: with another numpy (2.x) Triton 2.51 answers
        gRPC with wrong tensors and no error.
        """
        own = {
            "PATH": f"{self.env_dir}/bin:/usr/bin:/bin",
            "VIRTUAL_ENV": str(self.env_dir),
            "LD_LIBRARY_PATH": str(self.site_packages / "nvidia_pytriton.libs"),
        }
        return {
            # An image has the paths of its own.
            **({} if self.installed_at is not None else own),
            "PYTHONNOUSERSITE": "1",
            # Byte code beside a model's files changes what Triton takes for a changed model.
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "LANG": "C.UTF-8",
            "HOME": "/nonexistent",
        }


def install_stub(env_dir: Path) -> Path:
    """Put the Python stub of this interpreter's version where the backend looks for it.

    The wheel carries one stub per Python version beside the backends, and none inside: without
    this every Python model fails to load. Returns the stub's path; done twice changes nothing.
    """
    server = TritonServer(env_dir, Path(), "", 0, 0, 0)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = "triton_python_backend_stub"
    source = server.home / "python_backend_stubs" / version / name
    target = server.home / "backends" / "python" / name
    if not source.exists():
        have = ", ".join(sorted(path.name for path in source.parent.parent.iterdir()))
        raise TritonNotInstalled(f"the wheel has no Python stub for {version} (it has {have})")
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        replace_file(target, source.read_bytes(), mode=0o755)
    return target
