"""One SSH connection to one serving host, with its pinned key and nothing else accepted."""

from __future__ import annotations

import logging
import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serving.fleet.errors import FleetError, Unreachable
from serving.fleet.inventory import Host, Ssh

if TYPE_CHECKING:
    from fabric import Connection

# Whatever paramiko logs reaches us as an exception too; a person reads one sentence, not both.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


class RemoteError(FleetError):
    """A command on a host failed or ran out of time. `code` is its exit status (124: time)."""

    def __init__(self, message: str, code: int, stdout: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.stdout = stdout


def wrapped(command: str, timeout_s: float) -> str:
    """`command` as the host runs it: ended there after `timeout_s`, whatever happens to us.

    Closing the channel from here ends nothing: the command would go on without a reader.
    """
    return f"timeout --kill-after=5 {timeout_s:g} sh -c {shlex.quote(command)}"


@dataclass(frozen=True)
class Shell:
    """An open connection to `host`. Use `open_shell`; close it with `close`."""

    host: Host
    ssh: Ssh
    connection: Connection = field(repr=False)

    def run(self, command: str, timeout_s: float | None = None, check: bool = True) -> Answer:
        """Run a shell command on the host and return its output.

        `timeout_s` defaults to the fleet's `ssh.command_timeout_s`. Raises RemoteError for an exit
        status other than 0 unless `check` is false, and Unreachable for a lost connection.
        """
        limit = timeout_s or self.ssh.command_timeout_s
        import paramiko
        from invoke.exceptions import CommandTimedOut

        try:
            result = self.connection.run(
                wrapped(command, limit),
                hide=True,
                warn=True,
                in_stream=False,
                timeout=int(limit) + 15,
            )
        except (OSError, EOFError, paramiko.SSHException, CommandTimedOut) as error:
            raise Unreachable(f"{self.host.name}: the connection was lost ({error}).") from error
        answer = Answer(result.exited, result.stdout, result.stderr)
        if check and answer.code != 0:
            raise RemoteError(
                _sentence(self.host, command, answer, limit), answer.code, answer.stdout
            )
        return answer

    @contextmanager
    def forwarded(self, port: int) -> Iterator[str]:
        """`127.0.0.1:<free port>` here that leads to `port` of the host's Triton address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            local = probe.getsockname()[1]
        from invoke.exceptions import ThreadException

        tunnel = self.connection.forward_local(
            local, remote_port=port, remote_host=self.host.address, local_host="127.0.0.1"
        )
        tunnel.__enter__()
        try:
            yield f"127.0.0.1:{local}"
        finally:
            with suppress(ThreadException):
                # Raised when the far end went away before the tunnel did (Triton was restarted):
                # its user has had the error by then.
                tunnel.__exit__(None, None, None)

    def channel(self, port: int, timeout_s: float) -> Any:
        """A socket-like channel to `port` of the host's Triton address; the caller closes it.

        Raises Unreachable when nothing listens there.
        """
        import paramiko

        transport = self.connection.client.get_transport()
        try:
            channel = transport.open_channel(
                "direct-tcpip", (self.host.address, port), ("127.0.0.1", 0), timeout=timeout_s
            )
        except (paramiko.SSHException, OSError) as error:
            where = f"{self.host.address}:{port}"
            raise Unreachable(f"{self.host.name}: nothing answers at {where} ({error}).") from error
        channel.settimeout(timeout_s)
        return channel

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self.connection.close()


@dataclass(frozen=True)
class Answer:
    """Exit code and output of a remote command."""

    code: int
    stdout: str
    stderr: str


def open_shell(host: Host, ssh: Ssh) -> Shell:
    """Connect to `host`. Raises Unreachable for a wrong or unknown host key, a refused key of ours,
    or a host that does not answer in `ssh.connect_timeout_s`.

    Only the pinned `known_hosts` counts: no system file, no ~/.ssh/config, no agent, and a key
    that is not there is refused. (Fabric sets AutoAddPolicy on every connection it makes.)
    """
    import paramiko
    from fabric import Config, Connection

    _readable(ssh)
    connection = Connection(
        host.address,
        user=ssh.user,
        port=ssh.port,
        # An explicit SSH config, empty, keeps Fabric from reading the user's and the system's.
        config=Config(ssh_config=paramiko.SSHConfig()),
        connect_timeout=int(ssh.connect_timeout_s),
        connect_kwargs={
            "key_filename": str(ssh.key),
            "allow_agent": False,
            "look_for_keys": False,
            "banner_timeout": ssh.connect_timeout_s,
            "auth_timeout": ssh.connect_timeout_s,
            "channel_timeout": ssh.connect_timeout_s,
        },
    )
    connection.client.load_system_host_keys(str(ssh.known_hosts))
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    where = f"{host.name} ({host.address}:{ssh.port})"
    try:
        connection.open()
    except paramiko.BadHostKeyException as error:
        raise Unreachable(
            f"{where} showed another host key than the one pinned in {ssh.known_hosts}. Nothing "
            "was sent. Find out why before you pin the new one."
        ) from error
    except paramiko.AuthenticationException as error:
        raise Unreachable(f"{where} refused the key {ssh.key} for user {ssh.user}.") from error
    except paramiko.SSHException as error:
        if "not found in known_hosts" in str(error):
            raise Unreachable(
                f"{where} has no host key in {ssh.known_hosts}. Nothing was sent. Pin it first."
            ) from error
        raise Unreachable(f"{where} did not complete the SSH handshake: {error}.") from error
    except (OSError, EOFError) as error:
        raise Unreachable(
            f"{where} does not answer SSH: {error or type(error).__name__}."
        ) from error
    return Shell(host, ssh, connection)


def _readable(ssh: Ssh) -> None:
    for path, what in ((ssh.key, "SSH key"), (ssh.known_hosts, "list of pinned host keys")):
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise Unreachable(
                f"the deploy identity's {what} {path} cannot be read: {error.strerror}. Run fab as "
                "that identity: scripts/site as deploy fab ..."
            ) from error


def _sentence(host: Host, command: str, answer: Answer, limit: float) -> str:
    shown = command if len(command) <= 80 else f"{command[:77]}..."
    if answer.code == 124:
        return f"{host.name}: `{shown}` was ended after {limit:g} s."
    lines = (answer.stderr.strip() or answer.stdout.strip()).splitlines()
    reason = lines[-1] if lines else "no output"
    return f"{host.name}: `{shown}` failed with status {answer.code}: {reason}"
