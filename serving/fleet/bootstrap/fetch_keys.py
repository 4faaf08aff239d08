"""The keys by which hosts of a region fetch packages from each other, and who knows whom.

The control host makes each once and keeps it (whoever bootstraps is root on every host anyway); so
a host can be given the others' before they are there, and a second bootstrap finds nothing new.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from serving.fleet.errors import FleetError
from serving.fleet.inventory import Fleet, Host
from serving.fleet.ssh.pinned_keys import pinned_keys
from serving.host.peers import Peer, peers_json


@dataclass(frozen=True)
class FetchKey:
    """A key pair of a host: the private half as a file's text, the public one as in a .pub file."""

    private: str
    public: str


def ensure_fetch_key(folder: Path, host: str) -> FetchKey:
    """The key of `host` in `folder`, made once, also when two begin at once. Raises FleetError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / host
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{host}.") as new:
            made = Path(new, "key")
            _keygen("-q", "-t", "ed25519", "-N", "", "-C", f"fetch@{host}", "-f", str(made))
            with suppress(FileExistsError):  # another one was first: that is the key
                os.link(made, path)
    public = _keygen("-y", "-P", "", "-f", str(path))
    return FetchKey(path.read_text(encoding="ascii"), " ".join(public.split()[:2]))


def peers_of(fleet: Fleet, host: Host, folder: Path) -> str:
    """The text of the host's etc/peers.json: the others of its region whose key is pinned."""
    found = {}
    for other in fleet.region_of(host).hosts:
        ssh = fleet.ssh_of(other)
        pinned = pinned_keys(ssh.known_hosts, other.address, ssh.port).keys
        if other != host and pinned:
            host_key = f"{pinned[0].algorithm} {pinned[0].base64}"
            public = ensure_fetch_key(folder, other.name).public
            found[other.name] = Peer(other.address, ssh.port, host_key, public)
    return peers_json(found)


def _keygen(*words: str) -> str:
    done = subprocess.run(
        ["ssh-keygen", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise FleetError(f"ssh-keygen {words[-1]}: {done.stderr.strip()}.")
    return done.stdout
