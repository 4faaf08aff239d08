"""Packages on a host: received in staging, copied into an area of the verifier's, verified there.

Whatever arrives may change until the last moment; the copy may not. It is renamed into `packages/`
when it is good, and thrown away when it is not.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from serving.artifact.durable import seal_tree, sync_path
from serving.artifact.verify import MANIFEST, Refused, Verified, file_sha256, verify_package
from serving.host import arrivals, state
from serving.host.errors import HostRefusal
from serving.host.home import HostHome
from serving.host.trees import copy_tree, remove_tree


@dataclass(frozen=True)
class Numbered:
    """The folders of one model: those that are versions, and the names of all else."""

    versions: tuple[int, ...]
    odd: tuple[str, ...]


def numbered(folder: Path) -> Numbered:
    """The version folders in `folder`; none where it does not exist.

    A version is a plain number without leading zeros; `3.bak` is an odd name and no more.
    """
    if not folder.is_dir():
        return Numbered((), ())
    versions, odd = [], []
    for path in folder.iterdir():
        name = path.name
        if name.isascii() and name.isdigit() and name[0] != "0" and path.is_dir():
            versions.append(int(name))
        elif name != "config.pbtxt":
            odd.append(ascii(name)[1:-1])
    return Numbered(tuple(sorted(versions)), tuple(sorted(odd)))


def digests(home: HostHome, model: str) -> dict[int, str]:
    """The sha256 of the manifest of each package of `model`, unverified; "" for none readable."""
    found = {}
    for version in numbered(home.packages / model).versions:
        try:
            found[version] = file_sha256(home.package(model, version) / MANIFEST)
        except OSError:
            found[version] = ""
    return found


def verified_package(
    home: HostHome, model: str, version: int, folder: Path | None = None, arrives: bool = False
) -> Verified:
    """Verify the package of `model`/`version`, where it is kept or in `folder`.

    One that `arrives` may not be expired; one that serves goes on. Raises HostRefusal with the
    verifier's reason.
    """
    try:
        return verify_package(
            folder or home.package(model, version),
            home.allowed_signers,
            model,
            version,
            revoked=state.revoked_list(home),
            accept_expired=not arrives,
            approvals=home.approvals if arrives else 0,
        )
    except Refused as refused:
        raise HostRefusal(refused.reason, str(refused)) from None


def prepare(home: HostHome, model: str, version: int, rollback: bool) -> dict[str, object]:
    """Make a staging folder for a package; one that an interrupted transfer left is kept.

    `{"ready": digest}` where the package is here and good: nothing is to be sent. A package that
    was changed since it was accepted is removed, and not copied from. What interrupted rollouts of
    other versions left is removed. Raises HostRefusal("older-version") before anything is sent.
    """
    state.refuse_older(home, model, version, rollback)
    kept = home.package(model, version)
    if kept.exists():
        try:
            return {"ready": verified_package(home, model, version).digest}
        except HostRefusal:
            remove_tree(kept)
    arrivals.remove_others(home, model, version)
    for other in home.staging.glob(f"{model}-*"):
        number = other.name.removeprefix(f"{model}-")
        if number.isdigit() and number != str(version):
            clear_staging(other)
    staged = home.staged(model, version)
    if not _is_own_folder(staged):
        clear_staging(staged)
        staged.mkdir()
        staged.chmod(0o2770)
    return {"ready": None}


def _is_own_folder(path: Path) -> bool:
    """True for a folder that this identity made, and not the account that receives."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def clear_staging(staged: Path) -> None:
    """Free the name `staged`, and remove what was there.

    What the receiving account has made its own against us loses its name and stays as rubbish
    beside: it can hold up its own space on the disk, and no later package.
    """
    if not staged.exists() and not staged.is_symlink():
        return
    aside = staged.with_name(f".left-{secrets.token_hex(8)}")
    staged.rename(aside)
    with suppress(PermissionError):
        remove_tree(aside)


def accept(home: HostHome, model: str, version: int, rollback: bool) -> dict[str, object]:
    """Move a verified copy of what has arrived into `packages/`; `{"digest"}` of its manifest.

    What was sent counts before what was found here or came from another host. Raises HostRefusal
    with the verifier's reason, or "older-version"; nothing is then left of it. Raises
    HostRefusal("busy") while an earlier command still fetches it, and then all stays.
    """
    with arrivals.held(home, model, version):
        return _accept_held(home, model, version, rollback)


def _accept_held(home: HostHome, model: str, version: int, rollback: bool) -> dict[str, object]:
    staged, kept = home.staged(model, version), home.package(model, version)
    area = home.packages / ".verifying"
    copied = area / staged.name
    remove_tree(area)
    area.mkdir(mode=0o700)
    try:
        if not staged.is_dir() or staged.is_symlink():
            raise HostRefusal("no-package", f"nothing was sent for {model}/{version}")
        copy_tree(staged, copied)
        arrivals.move_arrived(home, model, version, copied)
        found = verified_package(home, model, version, copied, arrives=True)
        state.refuse_older(home, model, version, rollback)
        seal_tree(copied)
        state.remember_highest(home, model, version)
        kept.parent.mkdir(exist_ok=True)
        remove_tree(kept)
        # A folder's owner needs the right to write in it to move it.
        copied.chmod(0o755)
        copied.rename(kept)
        kept.chmod(0o555)
        sync_path(kept.parent)
    finally:
        remove_tree(area)
        remove_tree(arrivals.area_of(home, model, version))
        clear_staging(staged)
    return {"digest": found.digest}


def prune(home: HostHome, model: str, kept: Collection[int], count: int) -> dict[str, object]:
    """Remove packages and installed versions, but for `kept` and the newest `count` good ones.

    Good are those that a controller proved in service: a version that never came so far pushes no
    other off the disk. Where nothing was ever proven, all count as good.
    """
    spare = [v for v in numbered(home.packages / model).versions if v not in kept]
    proven = state.proven_versions(home, model)
    good = [v for v in spare if v in proven or not proven]
    newest = good[-count:] if count else []
    old = [version for version in spare if version not in newest]
    installed = [v for v in numbered(home.repository / model).versions if v not in kept]
    for version in old:
        remove_tree(home.package(model, version))
    for version in installed:
        remove_tree(home.installed(model, version))
    return {"packages": old, "installed": installed}
