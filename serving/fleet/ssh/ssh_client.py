"""The command line of the ssh client, for rsync and for the way through a jump host.

The same pinned keys as our own connection, and nothing else: no file of a user or of the system.
"""

from __future__ import annotations

import shlex

from serving.fleet.inventory import Ssh


def ssh_command(ssh: Ssh) -> str:
    """The ssh that rsync runs over."""
    jump = jump_command(ssh)
    through = ["-o", f"ProxyCommand={jump}"] if jump else []
    return shlex.join(["ssh", *_options(ssh), "-p", str(ssh.port), *through])


def jump_command(ssh: Ssh) -> str:
    """The command that is a connection to `%h` port `%p` through the jump host, "" without one.

    The jump host is reached with the same key, and its own key is pinned in the same file.
    """
    if not ssh.proxy_jump:
        return ""
    user_at, _, port = ssh.proxy_jump.rpartition(":")
    return shlex.join(["ssh", *_options(ssh), "-p", port, "-W", "[%h]:%p", user_at])


def _options(ssh: Ssh) -> list[str]:
    return [
        "-F", "none", "-i", str(ssh.key),
        "-o", f"UserKnownHostsFile={ssh.known_hosts}", "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no",
        "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
        # A banner on stderr is not the reason of a failure.
        "-o", "LogLevel=ERROR",
        # Processors do it in hardware: a package costs a third of the default's time.
        "-o", "Ciphers=^aes128-gcm@openssh.com",
        "-o", f"ConnectTimeout={ssh.connect_timeout_s:g}",
    ]  # fmt: skip
