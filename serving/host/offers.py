"""Packages that this host lets another host of its region read, for a time and by that host's key.

The offers are one file in sshd's own format, `state/offers`, which sshd reads beside the installed
authorized_keys. A line has the key of a peer, the one command it may have run (`blobs`), and behind
the key the packages with the second at which each offer ends:

    restrict,command="... blobs use1-b" ssh-ed25519 AAAA... toy/3@1790000000
"""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Mapping

from serving.artifact.durable import replace_file
from serving.host.errors import HostRefusal
from serving.host.home import HostHome
from serving.host.peers import read_peer, read_peers
from serving.host.requests import MAX_TIMEOUT_S

OFFER_S = MAX_TIMEOUT_S
"""Seconds that an offer lasts: as long as the longest fetch may."""

Offers = Mapping[str, Mapping[str, int]]
"""Name of a peer -> `model/version` -> the second of the epoch at which the offer ends."""

_LINE = re.compile(r'restrict,command="[^"]* blobs (?P<peer>[^" ]+)" \S+ \S+ (?P<packages>.+)')


def offer_package(home: HostHome, model: str, version: int, peer: str) -> None:
    """Let `peer` read the package of `model`/`version` from now on, for OFFER_S.

    Raises HostRefusal: "no-package" where there is none, "peer" for a host that is no peer.
    """
    read_peer(home, peer)
    if not home.package(model, version).is_dir():
        raise HostRefusal("no-package", f"{model}/{version} is not here")
    found = {name: dict(packages) for name, packages in read_offers(home).items()}
    found.setdefault(peer, {})[f"{model}/{version}"] = int(time.time()) + OFFER_S
    keys = {name: one.fetch_key for name, one in read_peers(home).items()}
    lines = [_line(home, name, keys[name], found[name]) for name in sorted(found) if name in keys]
    replace_file(home.offers, "".join(lines), 0o600)


def read_offers(home: HostHome) -> Offers:
    """The offers that have not ended. A line that is none of ours is no offer."""
    try:
        text = home.offers.read_text(encoding="ascii")
    except FileNotFoundError:
        return {}
    found: dict[str, dict[str, int]] = {}
    now = time.time()
    for match in filter(None, map(_LINE.fullmatch, text.splitlines())):
        pairs = [package.rpartition("@") for package in match["packages"].split(" ")]
        lasting = {name: int(end) for name, _, end in pairs if end.isdigit() and int(end) > now}
        if lasting:
            found[match["peer"]] = lasting
    return found


def _line(home: HostHome, peer: str, key: str, packages: Mapping[str, int]) -> str:
    program = [sys.executable, "-I", "-B", str(home.root / "etc" / "host"), str(home.root)]
    command = shlex.join([*program, "blobs", peer])
    if '"' in command or "\n" in command:
        raise HostRefusal("state", f"the path {home.root} cannot stand in a file of sshd's")
    algorithm, body = key.split()[:2]
    named = " ".join(f"{name}@{end}" for name, end in sorted(packages.items()))
    return f'restrict,command="{command}" {algorithm} {body} {named}\n'
