"""The other hosts of the region, as the installation pinned them in etc/peers.json, root's.

A host gives a package to no other key and takes one from no other place, whatever a controller
wants: a thief of the deploy key neither reads a model nor has a host call somewhere. A host without
the file has no peers, and the controller sends to it as to any.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from serving.host.errors import HostRefusal
from serving.host.home import HostHome


@dataclass(frozen=True)
class Peer:
    """One other host: its sshd, the public key of that, and the one by which it fetches itself.

    Each key is an algorithm and base64, as in a .pub file.
    """

    address: str
    port: int
    host_key: str
    fetch_key: str


def peers_json(peers: Mapping[str, Peer]) -> str:
    """The text of etc/peers.json."""
    content = {name: asdict(peer) for name, peer in sorted(peers.items())}
    return json.dumps(content, indent=2) + "\n"


def read_peers(home: HostHome) -> dict[str, Peer]:
    """The peers by name. Raises HostRefusal("state") for a file that cannot be read."""
    try:
        content = json.loads(home.peers.read_bytes())
        return {str(name): Peer(**values) for name, values in content.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise HostRefusal("state", f"{home.peers} cannot be read: {error}") from None


def read_peer(home: HostHome, name: str) -> Peer:
    """The peer called `name`. Raises HostRefusal("peer") for a host that is none."""
    peer = read_peers(home).get(name)
    if peer is None:
        raise HostRefusal("peer", f"{name} is no host that this one knows (etc/peers.json)")
    return peer
