"""Bring a package onto a host: checked for room, sent once, verified there, moved in by rename.

The order is the safety: bytes arrive in `staging/`, which nobody trusts; the host's own verifier
and the host's own list of signers, both root's, check them; only then are they made read-only and
renamed into `packages/`. Triton sees a version directory appear whole, as a copy of verified files.
Nothing is hard-linked: a link is a second way to write to a file that was found good, and the
verifier refuses it.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from serving.fleet.errors import FleetError, FleetRefusal
from serving.fleet.inventory import Host, Ssh
from serving.fleet.shipment import Shipment
from serving.fleet.ssh.connection import Shell


class PackageRefused(FleetRefusal):
    """A host's verifier refused the package; `reason` is its name for the fault."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class NoRoom(FleetRefusal):
    """A host lacks disk or shared memory for the package."""


@dataclass(frozen=True)
class Facts:
    """The files of one model on a host. `packages`: digest of each verified package's manifest.

    `config` is the text of the model's config.pbtxt, None where there is none. Room in bytes.
    """

    packages: dict[int, str]
    installed: tuple[int, ...]
    config: str | None
    disk_free: int
    shm_free: int


@dataclass(frozen=True)
class TransferLimits:
    """Room that must remain on a host, in bytes, and the transfer's cap in KiB/s (0: none)."""

    free_disk: int
    free_shm: int
    transfer_kib_s: int = 0


def facts_command(host: Host, model: str) -> str:
    """Read-only: one line per fact, `<kind> <value>`."""
    return "\n".join(
        [
            f"cd {_q(host.root)} || exit 1",
            'echo "disk $(df --output=avail -B1 . | tail -1)"',
            'echo "shm $(df --output=avail -B1 /dev/shm | tail -1)"',
            f"for f in packages/{model}/[0-9]*/manifest.json; do",
            '  [ -f "$f" ] && echo "package $(sha256sum "$f")"; done',
            f"for d in model-repository/{model}/[0-9]*; do",
            '  [ -d "$d" ] && echo "installed ${d##*/}"; done',
            f"c=model-repository/{model}/config.pbtxt",
            '[ -f "$c" ] && sed \'s/^/config /\' "$c"',
            "true",
        ]
    )


def parse_facts(text: str) -> Facts:
    """The answer to `facts_command`."""
    packages: dict[int, str] = {}
    installed, config, room = [], [], {"disk": 0, "shm": 0}
    for line in text.splitlines():
        kind, _, value = line.partition(" ")
        if kind in room:
            room[kind] = int(value)
        elif kind == "package":
            digest, path = value.split(maxsplit=1)
            packages[int(Path(path).parent.name)] = digest
        elif kind == "installed":
            installed.append(int(value))
        elif kind == "config":
            config.append(value + "\n")
    return Facts(
        packages,
        tuple(sorted(installed)),
        "".join(config) if config else None,
        room["disk"],
        room["shm"],
    )


def check_room(host: str, facts: Facts, size: int, limits: TransferLimits) -> None:
    """Raises NoRoom unless `size` more bytes leave the host as free as `limits` wants it."""
    if facts.disk_free < size + limits.free_disk:
        raise NoRoom(
            f"{host}: {facts.disk_free >> 20} MiB of disk are free; the package takes "
            f"{size >> 20} MiB and {limits.free_disk >> 20} MiB must remain "
            "(rollout.free_disk_mib). Nothing was changed."
        )
    if facts.shm_free < limits.free_shm:
        raise NoRoom(
            f"{host}: {facts.shm_free >> 20} MiB of /dev/shm are free, "
            f"{limits.free_shm >> 20} MiB are wanted (rollout.free_shm_mib). Regions left by a "
            "killed Triton may be removed there: ls /dev/shm/lockgate_*. Nothing was "
            "changed."
        )


def ssh_command(ssh: Ssh) -> str:
    """The ssh that rsync runs over: the same pinned keys as our own connection, nothing else."""
    return shlex.join(
        [
            "ssh", "-F", "none", "-p", str(ssh.port), "-i", str(ssh.key),
            "-o", f"UserKnownHostsFile={ssh.known_hosts}", "-o", "GlobalKnownHostsFile=/dev/null",
            "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no",
            "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
            "-o", f"ConnectTimeout={ssh.connect_timeout_s:g}",
        ]
    )  # fmt: skip


def rsync_argv(
    source: Path, host: Host, ssh: Ssh, target: Path, copy_dest: Path | None, kib_s: int
) -> list[str]:
    """Send a package folder. What `copy_dest` on the host has of the same bytes is not sent again.

    By checksum, not by time and size: two versions' files may well share both.
    """
    user = f"{ssh.user}@" if ssh.user else ""
    address = f"[{host.address}]" if ":" in host.address else host.address
    return [
        "rsync", "--recursive", "--links", "--times", "--checksum", "--delete", "--partial",
        "--chmod=D755,F444", "--protect-args", "--timeout=60", "--stats",
        *([f"--bwlimit={kib_s}"] if kib_s else []),
        *([f"--copy-dest={copy_dest}"] if copy_dest else []),
        "--rsh", ssh_command(ssh),
        "--", f"{source}/", f"{user}{address}:{target}/",
    ]  # fmt: skip


def verify_command(host: Host, directory: Path, model: str, version: int) -> str:
    """The command that verifies a package with the host's own verifier and signers."""
    return (
        f"{_q(host.python)} -I {_q(host.verifier)} {_q(directory)} "
        f"--allowed-signers {_q(host.allowed_signers)} --model {model} --version {version} --json"
    )


def accept_command(host: Host, model: str, version: int) -> str:
    """Make the verified folder read-only and rename it into `packages/`."""
    staged = host.staging / f"{model}-{version}"
    return "\n".join(
        [
            "set -e",
            f"mkdir -p {_q(host.packages / model)}",
            discard_command(host.packages / model / str(version)),
            f"find {_q(staged)} -mindepth 1 -type d -exec chmod 555 {{}} +",
            f"mv -T {_q(staged)} {_q(host.packages / model / str(version))}",
            # A folder's owner needs the right to write in it to move it: last, therefore.
            f"chmod 555 {_q(host.packages / model / str(version))}",
        ]
    )


def install_command(host: Host, model: str, version: int) -> str:
    """Give Triton the version: a copy of the verified files, moved in whole.

    What is there and equal stays as it is; what is there and differs is replaced.
    """
    verified = host.packages / model / str(version) / "version"
    target = host.repository / model / str(version)
    staged = host.staging / f"{model}-{version}.version"
    old = host.staging / f"{model}-{version}.replaced"
    return "\n".join(
        [
            "set -e",
            f"if [ -d {_q(target)} ] && diff -rq {_q(verified)} {_q(target)} >/dev/null 2>&1; then",
            # Not a plain chmod: it touches the folder's ctime even when nothing changes, which
            # Triton takes for a new model: a flip of loaded versions becomes a reload (measured).
            f"  find {_q(target)} -maxdepth 0 -perm /222 -exec chmod 555 {{}} +; exit 0; fi",
            discard_command(staged, old),
            f"mkdir -p {_q(target.parent)}",
            f"cp -a --reflink=auto {_q(verified)} {_q(staged)}",
            f"chmod 755 {_q(staged)}",
            f"if [ -e {_q(target)} ]; then",
            f"  chmod 755 {_q(target)}; mv -T {_q(target)} {_q(old)}; fi",
            f"mv -T {_q(staged)} {_q(target)}",
            f"chmod 555 {_q(target)}",
            discard_command(old),
        ]
    )


def persist_command(host: Host, model: str, config: str | None) -> str:
    """Write the model's config.pbtxt atomically, or take the model out of the repository.

    A Triton that is restarted loads the versions in this file: the served set that survives.
    """
    folder = host.repository / model
    if config is None:
        # Without a config Triton would guess one for the version directories that it finds.
        gone = host.staging / f"{model}.gone"
        return "\n".join(
            [
                "set -e",
                discard_command(gone),
                f"if [ -d {_q(folder)} ]; then",
                f"  chmod 755 {_q(folder)}; mv -T {_q(folder)} {_q(gone)}; fi",
                discard_command(gone),
            ]
        )
    partial = host.staging / f"{model}.config.pbtxt"
    return "\n".join(
        [
            "set -e",
            f"mkdir -p {_q(folder)}",
            f"printf %s {shlex.quote(config)} > {_q(partial)}",
            f"chmod 644 {_q(partial)}",
            f"sync {_q(partial)}",
            f"mv -T {_q(partial)} {_q(folder / 'config.pbtxt')}",
        ]
    )


def prune_command(
    host: Host, model: str, packages: tuple[int, ...], installed: tuple[int, ...]
) -> str:
    """Remove packages and version directories by number."""
    folders = [host.packages / model / str(number) for number in packages]
    folders += [host.repository / model / str(number) for number in installed]
    return "\n".join(["set -e", discard_command(*folders)])


def discard_command(*folders: Path) -> str:
    """Remove trees that may be read-only."""
    names = " ".join(_q(folder) for folder in folders)
    return (
        f'for d in {names}; do if [ -e "$d" ]; then '
        'find "$d" -type d -exec chmod u+w {} +; rm -rf "$d"; fi; done'
    )


def to_prune(
    facts: Facts, served: tuple[int, ...], keep: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(packages, installed) versions to remove: never a served one, never the newest `keep`."""
    newest = sorted(set(facts.packages) - set(served))[-keep:] if keep else []
    packages = tuple(sorted(set(facts.packages) - set(served) - set(newest)))
    return packages, tuple(sorted(set(facts.installed) - set(served)))


def read_facts(shell: Shell, model: str) -> Facts:
    """Read the host's facts over SSH. Raises RemoteError, Unreachable."""
    return parse_facts(shell.run(facts_command(shell.host, model)).stdout)


def stage(shell: Shell, shipment: Shipment, limits: TransferLimits) -> str:
    """Have the verified package in the host's `packages/`; returns what was done, for people.

    Raises NoRoom, PackageRefused (the host then has nothing of it), RemoteError, Unreachable.
    """
    host, model, version = shell.host, shipment.model, shipment.version
    facts = read_facts(shell, model)
    kept = host.packages / model / str(version)
    if version in facts.packages:
        try:
            _verify(shell, kept, shipment)
            return "already there and verified"
        except PackageRefused:
            # Changed on the host since it was accepted: not to be trusted, not to be copied from.
            shell.run(discard_command(kept))
    # Twice: once in packages/, once as Triton's copy of the version directory.
    check_room(host.name, facts, 2 * shipment.size, limits)
    staged = host.staging / f"{model}-{version}"
    others = [number for number in facts.packages if number != version]
    copy_dest = host.packages / model / str(max(others)) if others else None
    shell.run(f"mkdir -p {_q(staged)}")
    sent = _rsync(
        rsync_argv(shipment.path, host, shell.ssh, staged, copy_dest, limits.transfer_kib_s)
    )
    try:
        _verify(shell, staged, shipment)
    except PackageRefused:
        shell.run(discard_command(staged))
        raise
    shell.run(accept_command(host, model, version))
    return f"{_mib(sent)} sent of {_mib(shipment.size)}, verified"


def _verify(shell: Shell, directory: Path, shipment: Shipment) -> None:
    command = verify_command(shell.host, directory, shipment.model, shipment.version)
    answer = shell.run(command, timeout_s=900, check=False)
    where = f"{shell.host.name} refused {shipment}"
    try:
        verdict = json.loads(answer.stdout)
    except ValueError:
        lines = (answer.stderr or answer.stdout).strip().splitlines()
        raise FleetError(
            f"{shell.host.name}: the verifier {shell.host.verifier} did not run "
            f"({lines[-1] if lines else f'status {answer.code}'}). Nothing was activated."
        ) from None
    if answer.code != 0 or verdict.get("ok") is not True:
        reason = str(verdict.get("refused"))
        raise PackageRefused(f"{where}: {reason}: {verdict.get('detail')}", reason)
    if verdict.get("digest") != shipment.digest:
        raise PackageRefused(
            f"{where}: changed-manifest: it is signed, but not what was read here",
            "changed-manifest",
        )


def _rsync(argv: list[str]) -> int:
    """Run rsync; returns the bytes it sent."""
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        reason = lines[0] if lines else f"status {done.returncode}"
        raise FleetError(f"sending to {argv[-1]} failed: {reason}. Nothing was activated there.")
    for line in done.stdout.splitlines():
        if line.startswith("Total bytes sent:"):
            return int(line.split(":")[1].replace(",", "").strip())
    return 0


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def _q(path: Path | str) -> str:
    return shlex.quote(str(path))
