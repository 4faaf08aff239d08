"""A package on its way in: what has arrived of it, and what is still missing.

The area of a version, `packages/.arriving/<model>/<N>/`, is the verifier's alone. It begins with
the signed manifest, which is checked before any other byte is worth sending, then takes from the
host's own packages each file that it has already, by content, and then what a neighbour has. What
the controller sends comes through staging. The area outlives a killed controller, so the next one
goes on at what is missing. Nothing here is trusted: `packages.accept` verifies the whole once.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from serving.artifact.durable import replace_file
from serving.artifact.verify import (
    APPROVAL,
    MANIFEST,
    SIGNATURE,
    Refused,
    SignedListing,
    signed_listing,
)
from serving.host import blobs, state
from serving.host.errors import HostRefusal
from serving.host.home import HostHome
from serving.host.peers import Peer
from serving.host.trees import remove_tree

_MAX_BESIDE = 16 << 20


def area_of(home: HostHome, model: str, version: int) -> Path:
    """The folder of a version that arrives."""
    return home.packages / ".arriving" / model / str(version)


@contextmanager
def held(home: HostHome, model: str, version: int, wait: bool = False) -> Iterator[None]:
    """Hold the area of a version: a fetch that outlived its controller must not write into what is
    being verified. Raises HostRefusal("busy") for a held one, unless told to wait."""
    path = home.state / f"{model}.{version}.arriving"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{model}/{version} is being fetched by an earlier command; try again soon"
            raise HostRefusal("busy", message) from None
        yield
    finally:
        os.close(handle)


def missing(home: HostHome, model: str, version: int) -> dict[str, int]:
    """Bytes of each file that must be sent for the package whose manifest lies in staging.

    Raises HostRefusal with the verifier's reason for a manifest that is not to be believed: then
    nothing more is worth sending.
    """
    staged = home.staged(model, version)
    beside = {}
    for name in (MANIFEST, SIGNATURE, APPROVAL):
        with suppress(FileNotFoundError):
            beside[name] = _read_staged(staged / name)
    with held(home, model, version):
        listing = _begin(home, model, version, beside)
        lacking = _lacking(area_of(home, model, version), listing)
    return {path: entry["bytes"] for path, entry in lacking.items()}


def fetch(
    home: HostHome,
    model: str,
    version: int,
    digest: str,
    peer: Peer,
    limit_kib_s: int,
    rollback: bool,
) -> dict[str, object]:
    """Complete the area of `model`/`version` from `peer`; `{"bytes"}` that came from there.

    Raises HostRefusal("peer") for a neighbour that fails; what came until then stays.
    """
    state.refuse_older(home, model, version, rollback)
    with held(home, model, version, wait=True), blobs.connected(home, peer, limit_kib_s) as stream:
        found = {
            MANIFEST: stream.manifest(digest),
            SIGNATURE: stream.signature(digest),
            APPROVAL: stream.approval(digest),
        }
        beside = {name: content for name, content in found.items() if content is not None}
        listing = _begin(home, model, version, beside)
        area = area_of(home, model, version)
        for path, entry in _lacking(area, listing).items():
            stream.append(entry["sha256"], area / path, entry["bytes"])
        return {"bytes": stream.received}


def move_arrived(home: HostHome, model: str, version: int, folder: Path) -> None:
    """Move what has arrived into `folder`, but for files that it has; the area is gone then."""
    area = area_of(home, model, version)
    for path in sorted(area.rglob("*")):
        target = folder / path.relative_to(area)
        if path.is_file() and not target.exists() and not target.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    remove_tree(area)


def remove_others(home: HostHome, model: str, version: int) -> None:
    """Remove the areas of other versions of the model: their rollouts are over."""
    folder = home.packages / ".arriving" / model
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.isdigit() and path.name != str(version):
            with suppress(HostRefusal), held(home, model, int(path.name)):
                remove_tree(path)
            (home.state / f"{model}.{path.name}.arriving").unlink(missing_ok=True)


def _begin(home: HostHome, model: str, version: int, beside: dict[str, bytes]) -> SignedListing:
    """Have the area hold this manifest, and every listed file that a package here has."""
    area = area_of(home, model, version)
    manifest = area / MANIFEST
    if area.exists() and (not manifest.is_file() or manifest.read_bytes() != beside.get(MANIFEST)):
        remove_tree(area)  # of another package with this number
    area.mkdir(parents=True, exist_ok=True)
    for name, content in beside.items():
        replace_file(area / name, content, durable=False)
    try:
        listing = signed_listing(
            area,
            home.allowed_signers,
            model,
            version,
            revoked=state.revoked_list(home),
            approvals=home.approvals,
        )
    except Refused as refused:
        remove_tree(area)
        raise HostRefusal(refused.reason, str(refused)) from None
    own = _own_files(home, model)
    for path, entry in _lacking(area, listing).items():
        source = own.get(entry["sha256"])
        if source is not None and source.stat().st_size == entry["bytes"]:
            (area / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, area / path)
    return listing


def _lacking(area: Path, listing: SignedListing) -> dict[str, dict]:
    def have(path: Path) -> int:
        return path.stat().st_size if path.is_file() else -1

    return {
        path: entry
        for path, entry in listing.files.items()
        if have(area / path) != entry["bytes"]
    }  # fmt: skip


def _own_files(home: HostHome, model: str) -> dict[str, Path]:
    """Files of this host's packages of the model by the sha256 in their manifests."""
    found: dict[str, Path] = {}
    folder = home.packages / model
    for package in sorted(folder.iterdir()) if folder.is_dir() else ():
        with suppress(OSError, ValueError, KeyError, TypeError):
            listed = json.loads((package / MANIFEST).read_bytes())["files"]
            files = {str(entry["sha256"]): package / entry["path"] for entry in listed}
            found.update({digest: path for digest, path in files.items() if path.is_file()})
    return found


def _read_staged(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        return file.read(_MAX_BESIDE)
