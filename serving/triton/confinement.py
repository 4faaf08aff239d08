"""Confinement of a tritonserver that runs code which nobody has vouched for.

The server runs as another OS user under bubblewrap, in namespaces of its own: no network, no other
process, no file but the system's, the serving environment's and its model repository's, all
read-only. Its gRPC is a unix socket in a folder that the caller and that user alone can enter.

https://github.com/containers/bubblewrap, prlimit(1), timeout(1)
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from conf.errors import MISTAKE
from serving.os_user import ENVIRONMENT, as_user, refuse_own_user
from serving.triton.server import TritonError, TritonServer

#: Folders inside: the model repository, and the one of the socket.
MODELS, RUN = Path("/models"), Path("/run/gate")
GRPC_PORT = 8001

# The server lives as long as the write end of stdin is open: another user's process cannot be
# signalled, but a pipe closes also when the caller is killed. umask: who may enter the folder of
# the socket may call.
_LIVE_WITH_STDIN = """
umask 000
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{ cat >/dev/null; kill -KILL $server; } <&3 3<&- 2>/dev/null &
exec 3<&-
wait $server
"""


class ConfinementError(TritonError):
    """A server cannot be confined on this machine; the message has what is missing."""

    exit_code = MISTAKE


@dataclass(frozen=True)
class ConfinementLimits:
    """Bounds of one confined server; what goes beyond fails inside it."""

    memory_mib: int
    """Private memory of one process (RLIMIT_DATA)."""
    total_mib: int
    """Private memory of all processes together; beyond it the server is ended."""
    processes: int
    """Processes and threads of the user, all its servers together (RLIMIT_NPROC)."""
    file_mib: int
    """Size of one file, and of the log (RLIMIT_FSIZE)."""
    scratch_mib: int
    """Of /tmp, and again of /dev/shm; both are memory."""
    open_files: int
    """Open files of one process (RLIMIT_NOFILE)."""
    life_s: float
    """Seconds after which the server is killed, whatever it still does."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"{name}={value}: must be above 0")


@dataclass(frozen=True)
class Confinement:
    """User, folder and bounds of confined servers.

    `folder` is the caller's, and lets the group of `user` pass: each server gets a folder of its
    own in it. `read_only` are further folders that the serving environment needs, such as CUDA.
    """

    user: str
    folder: Path
    limits: ConfinementLimits
    read_only: tuple[Path, ...] = ()

    def check(self) -> None:
        """Raise OsUserError or ConfinementError unless a server can be confined here."""
        refuse_own_user(self.user, "ephemeral.user", "runs what a candidate brings")
        if shutil.which("bwrap", path=ENVIRONMENT["PATH"]) is None:
            raise ConfinementError("bubblewrap is not installed: run scripts/setup as root")
        if not self.folder.is_dir():
            raise ConfinementError(f"{self.folder} is not there: scripts/site up makes it")
        enters = [*as_user(self.user), "test", "-x", str(self.folder)]
        done = subprocess.run(enters, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = done.stderr.strip() or f"{self.user} cannot enter {self.folder}"
            raise ConfinementError(
                f"nothing can be run as {self.user}: {reason}. scripts/site up sets the folder's "
                "owner and the rule of sudo"
            )

    def server(self, env_dir: Path) -> TritonServer:
        """The server as it is started inside: no model, no TCP."""
        return TritonServer(
            env_dir=env_dir, repository=MODELS, address="", http_port=None, grpc_port=GRPC_PORT,
            metrics_port=None, exit_timeout_s=2, grpc_address=f"unix:{RUN}/grpc.sock",
        )  # fmt: skip

    def argv(self, server: TritonServer, repository: Path, run: Path) -> list[str]:
        """The command line that starts `server` with `repository` at MODELS and `run` at RUN.

        Its stdin is the pipe that keeps it alive. Raises TritonNotInstalled, OsUserError.
        """
        return [
            *as_user(self.user),
            *("sh", "-c", _LIVE_WITH_STDIN, "confined"),
            *("timeout", "--signal=KILL", str(self.limits.life_s)),
            *_prlimit(self.limits),
            *_bwrap(self.limits),
            *_bound("--ro-bind", server.env_dir, server.env_dir),
            *(word for path in self.read_only for word in _bound("--ro-bind", path, path)),
            *_bound("--ro-bind", repository, MODELS),
            *_bound("--bind", run, RUN),
            *("--remount-ro", "/", "--remount-ro", "/dev"),
            *_environment(server.environment()),
            *server.argv(),
        ]


def _prlimit(limits: ConfinementLimits) -> list[str]:
    return [
        "prlimit",
        f"--data={limits.memory_mib << 20}",
        f"--nproc={limits.processes}",
        f"--fsize={limits.file_mib << 20}",
        f"--nofile={limits.open_files}",
        "--core=0",
        "--msgqueue=0",
        "--memlock=65536",
    ]


def _bwrap(limits: ConfinementLimits) -> list[str]:
    """bubblewrap with the system's programs and libraries, and nothing else of the machine."""
    scratch = ["--size", str(limits.scratch_mib << 20), "--tmpfs"]
    return [
        *("bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"),
        *("--new-session", "--clearenv", "--chdir", "/"),
        *_bound("--ro-bind", Path("/usr"), Path("/usr")),
        *("--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
        *("--symlink", "usr/lib64", "/lib64"),
        *_bound("--ro-bind", Path("/etc/ld.so.cache"), Path("/etc/ld.so.cache")),
        *("--proc", "/proc", "--dev", "/dev", *scratch, "/dev/shm", *scratch, "/tmp"),
    ]


def _bound(option: str, source: Path, target: Path) -> list[str]:
    return [option, str(source), str(target)]


def _environment(variables: dict[str, str]) -> list[str]:
    return [word for name, value in variables.items() for word in ("--setenv", name, value)]
