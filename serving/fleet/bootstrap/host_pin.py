"""The pin of a new host's key: read over the network once, taken only with its fingerprint.

The fingerprint comes from the host itself by another way: its console, its provisioning
(`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`). A key that answers under its address and has
another fingerprint is refused; no host is ever trusted because it answered first.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from pathlib import Path

from serving.artifact.durable import replace_file
from serving.fleet.errors import FleetConfigError, FleetRefusal, Unreachable, denied
from serving.fleet.inventory import Host
from serving.fleet.ssh.pinned_keys import pinned_keys

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
ALGORITHM = "ssh-ed25519"


def known_hosts_line(name: str, address: str, port: int, public_key: str) -> str:
    """One pinned host: by its name and by its address, on its own port."""
    algorithm, body = public_key.split()[:2]
    names = (f"{one}" if port == 22 else f"[{one}]:{port}" for one in (name, address))
    return f"{','.join(names)} {algorithm} {body}\n"


def fingerprint(public_key: str) -> str:
    """The fingerprint of a public key, as ssh-keygen prints it."""
    digest = hashlib.sha256(base64.b64decode(public_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def pin(host: Host, port: int, known_hosts: Path, wanted: str, timeout_s: float) -> str:
    """Pin the key of `host` that has the fingerprint `wanted`; returns a sentence.

    Raises FleetConfigError for what is no fingerprint, FleetRefusal for another key or a host that
    has another pin, Unreachable.
    """
    if not _FINGERPRINT.fullmatch(wanted):
        raise FleetConfigError(
            f"--fingerprint={wanted!a}: is none. Read it on the host's own console: ssh-keygen -lf "
            "/etc/ssh/ssh_host_ed25519_key.pub; it is SHA256: and 43 letters."
        )
    public = _offered(host, port, timeout_s)
    found = fingerprint(public)
    if found != wanted:
        raise FleetRefusal(
            f"{host.name} ({host.address}) shows the key {found}, not {wanted}. Nothing was "
            "pinned. Somebody else may answer at that address."
        )
    pinned = pinned_keys(known_hosts, host.address, port).keys if known_hosts.exists() else ()
    if any(key.base64 == public.split()[1] for key in pinned):
        return f"{host.name}: {found} is pinned already."
    if pinned:
        raise FleetRefusal(
            f"{host.name} has another key in {known_hosts}. Where the host was set up anew, take "
            "the old one out first: "
            f"ssh-keygen -R {pinned_name(host.address, port)} -f {known_hosts}"
        )
    line = known_hosts_line(host.name, host.address, port, public)
    try:
        before = known_hosts.read_text(encoding="utf-8") if known_hosts.exists() else ""
        gap = "" if before.endswith("\n") or not before else "\n"
        replace_file(known_hosts, f"{before}{gap}{line}")
    except OSError as error:
        raise denied("cannot write", known_hosts, error) from error
    return f"{host.name}: {found} is pinned in {known_hosts}."


def pinned_name(address: str, port: int) -> str:
    """The name of a host in known_hosts, as a word of a shell."""
    return address if port == 22 else f"'[{address}]:{port}'"


def _offered(host: Host, port: int, timeout_s: float) -> str:
    """The public key that answers at the host's address."""
    argv = ["ssh-keyscan", "-T", str(round(timeout_s)), "-p", str(port), "-t", "ed25519", "--",
            host.address]  # fmt: skip
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise Unreachable("ssh-keyscan is not installed: install openssh-client.") from None
    for line in done.stdout.splitlines():
        words = line.split()
        if len(words) >= 3 and words[1] == ALGORITHM:
            return f"{words[1]} {words[2]}"
    raise Unreachable(f"{host.name} shows no {ALGORITHM} key at {host.address} port {port}.")
