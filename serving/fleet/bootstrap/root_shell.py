"""Root on one host over SSH: runs `host_side` there, and sends the wheelhouse by rsync."""

from __future__ import annotations

import json
import secrets
import shlex
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.artifact import durable
from serving.fleet.bootstrap import host_side
from serving.fleet.bootstrap.facts import HostFact, fact_values
from serving.fleet.bootstrap.host_side import MARK
from serving.fleet.errors import FleetError, Unreachable
from serving.fleet.ssh.connection import Shell
from serving.fleet.ssh.ssh_client import ssh_command

_PROGRAM = (
    "import json, sys, types; request = json.loads(sys.stdin.buffer.read())\n"
    "for name, text in request['modules']:\n"
    "    sys.modules[name] = types.ModuleType(name)\n"
    "    exec(compile(text, name, 'exec'), sys.modules[name].__dict__)\n"
    "sys.modules[name].main(request)\n"
)
_NO_STATUS = -1
"""paramiko's exit status of a command whose connection ended before it."""
_KEEPALIVE_S = 5
_DEAD_AFTER_S = 30
_MODULES = (durable, host_side)
"""The last one has the program's `main`."""


@dataclass(frozen=True)
class RootShell:
    """An open connection whose account is root, or becomes it by sudo."""

    shell: Shell

    @property
    def _sudo(self) -> list[str]:
        return [] if self.shell.ssh.user == "root" else ["sudo", "-n"]

    def compare(self, facts: Sequence[HostFact]) -> list[str]:
        """The difference of each fact, "" for none. Raises FleetError, Unreachable."""
        return self._run("compare", facts, 120)

    def make(self, fact: HostFact) -> None:
        """Make one fact. Raises FleetError with the reason, Unreachable."""
        self._run("make", [fact], 1800)

    def _run(self, act: str, facts: Sequence[HostFact], timeout_s: float) -> list[str]:
        nonce, host = secrets.token_hex(16), self.shell.host.name
        request = {
            "nonce": nonce,
            "act": act,
            "facts": [fact_values(fact) for fact in facts],
            "modules": [(module.__name__, _source(module)) for module in _MODULES],
        }
        command = shlex.join([*self._sudo, "python3", "-I", "-B", "-c", _PROGRAM])
        output, errors = self._exchange(command, json.dumps(request).encode(), timeout_s)
        _, found, document = output.rpartition(f"\n{MARK} {nonce}\n")
        if not found:
            lines = errors.strip().splitlines() or ["no reason"]
            raise FleetError(
                f"{host}: {self.shell.ssh.user} could not run python3 as root there: {lines[-1]}. "
                "A host needs python3 and root, or an account with sudo without a password."
            )
        answers = json.loads(document)
        for fact, answer in zip(facts, answers, strict=True):
            if "fault" in answer:
                raise FleetError(f"{host}: {fact.title}: {answer['fault']}")
        return [str(answer["text"]) for answer in answers]

    def _exchange(self, command: str, data: bytes, timeout_s: float) -> tuple[str, str]:
        import paramiko

        self._notice_a_dead_host()
        try:
            stdin, stdout, stderr = self.shell.connection.client.exec_command(
                command, timeout=timeout_s
            )
            stdin.write(data)
            stdin.channel.shutdown_write()
            output, errors = stdout.read(), stderr.read()
            if stdout.channel.recv_exit_status() == _NO_STATUS:
                raise EOFError("it closed")
        except (OSError, EOFError, paramiko.SSHException) as error:
            reason = str(error) or f"no answer within {timeout_s:g} s"
            raise Unreachable(
                f"{self.shell.host.name}: the connection was lost ({reason}). What was done stays; "
                "type the command again to go on."
            ) from error
        return output.decode(errors="replace"), errors.decode(errors="replace")

    def _notice_a_dead_host(self) -> None:
        """Have a host that lost its power end a step soon, and not when the step's time is over."""
        transport = self.shell.connection.client.get_transport()
        transport.set_keepalive(_KEEPALIVE_S)
        if isinstance(transport.sock, socket.socket):  # through a jump host it is a command
            transport.sock.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_AFTER_S * 1000
            )

    def send(self, source: Path, target: str) -> int:
        """Make the host's folder `target` equal to the folder `source`, or put the file `source`
        into it; returns the bytes that were sent."""
        host, ssh = self.shell.host, self.shell.ssh
        address = f"[{host.address}]" if ":" in host.address else host.address
        remote = shlex.join([*self._sudo, "rsync"])
        done = subprocess.run(
            ["rsync", "--recursive", "--checksum", "--delete", "--partial", "--stats",
             "--chown=root:root", "--chmod=D700,F644", "--timeout=60", "--rsync-path", remote,
             "--rsh", ssh_command(ssh), "--", f"{source}/" if source.is_dir() else str(source),
             f"{ssh.user}@{address}:{target}/"],
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise FleetError(
                f"{host.name}: {source.name} was not sent: {lines[0]}. Type the command again: "
                "what is there is not sent twice."
            )
        sent = [line for line in done.stdout.splitlines() if line.startswith("Total bytes sent:")]
        return int(sent[0].split(":")[1].replace(",", "")) if sent else 0


def _source(module: Any) -> str:
    return Path(module.__file__).read_text(encoding="utf-8")
