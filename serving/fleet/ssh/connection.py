"""One SSH connection to one serving host, with its pinned key and nothing else accepted."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from conf.site_checks import host_port
from serving.fleet.errors import Unreachable
from serving.fleet.inventory import Host, Ssh
from serving.fleet.ssh.pinned_keys import pinned_keys
from serving.fleet.ssh.ssh_client import jump_command

if TYPE_CHECKING:
    from fabric import Connection

# Whatever paramiko logs reaches us as an exception too; a person reads one sentence, not both.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Shell:
    """An open connection to `host`. Use `open_shell`; close it with `close`."""

    host: Host
    ssh: Ssh
    connection: Connection = field(repr=False)

    def run(self, command: str, timeout_s: float) -> Answer:
        """Send one command; the host's own program for this account decides what it is worth.

        Raises Unreachable for a lost connection, and for an answer that is not there `timeout_s`
        and 15 s later: the host ends the command itself.
        """
        import paramiko
        from invoke.exceptions import CommandTimedOut

        try:
            result = self.connection.run(
                command, hide=True, warn=True, in_stream=False, timeout=int(timeout_s) + 15
            )
        except (OSError, EOFError, paramiko.SSHException, CommandTimedOut) as error:
            raise Unreachable(f"{self.host.name}: the connection was lost ({error}).") from error
        return Answer(result.exited, result.stdout, result.stderr)

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
    where = f"{host.name} ({host_port(host.address, ssh.port)})"
    pinned = pinned_keys(ssh.known_hosts, host.address, ssh.port)
    connection = Connection(
        host.address,
        user=ssh.user,
        port=ssh.port,
        gateway=jump_command(ssh) or None,
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
    for key in pinned.keys:
        connection.client.get_host_keys().add(pinned.name, key.algorithm, key.parsed())
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
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
                f"{where} has no host key in {ssh.known_hosts}{pinned.remark}. Nothing was sent. "
                "Pin it first."
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
