"""The pinned keys of one host, as ssh itself finds them: hashed names, wildcards, markers and all.

A host under `@revoked` is refused with that key. A line `@cert-authority` pins no key: our own
connection checks keys, not certificates.
"""

from __future__ import annotations

import base64
import binascii
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serving.fleet.errors import Unreachable

if TYPE_CHECKING:
    from paramiko import PKey


@dataclass(frozen=True)
class PinnedKey:
    """A public key: its algorithm, and its blob in base64."""

    algorithm: str
    base64: str

    def parsed(self) -> PKey:
        """The key as paramiko has it."""
        from paramiko import PKey

        return PKey.from_type_string(self.algorithm, base64.b64decode(self.base64))


@dataclass(frozen=True)
class PinnedKeys:
    """The keys that count for `name`; `remark` is a clause about lines that give none."""

    name: str
    keys: tuple[PinnedKey, ...]
    remark: str = ""


def pinned_keys(known_hosts: Path, address: str, port: int) -> PinnedKeys:
    """The keys of the host at `address` in a known_hosts file. Raises Unreachable.

    A line that cannot be read is none for this host, and hides no other.
    """
    name = address if port == 22 else f"[{address}]:{port}"
    try:
        found = subprocess.run(
            ["ssh-keygen", "-F", name, "-f", str(known_hosts)],
            capture_output=True, text=True, errors="replace", timeout=30,
        )  # fmt: skip
    except FileNotFoundError:
        raise Unreachable("ssh-keygen is not installed: install openssh-client.") from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{known_hosts} was not searched within 30 s.") from None
    return parse_pinned(found.stdout, name)


def parse_pinned(output: str, name: str) -> PinnedKeys:
    """The keys in the lines that `ssh-keygen -F` printed."""
    keys: list[PinnedKey] = []
    revoked: set[str] = set()
    authorities = 0
    for line in output.split("\n"):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        if len(words) < 3 or not _is_base64(words[2]):
            continue
        if marker == "@revoked":
            revoked.add(words[2])
        elif marker == "@cert-authority":
            authorities += 1
        elif not marker:
            keys.append(PinnedKey(words[1], words[2]))
    kept = tuple(key for key in keys if key.base64 not in revoked and _is_known(key))
    remark = ""
    if revoked:
        remark = " but one that is @revoked"
    elif authorities:
        remark = " but a @cert-authority, which fab does not check"
    return PinnedKeys(name, kept, remark)


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return False
    return True


def _is_known(key: PinnedKey) -> bool:
    from paramiko import SSHException
    from paramiko.pkey import UnknownKeyType

    try:
        key.parsed()
    except (SSHException, UnknownKeyType, ValueError):
        return False
    return True
