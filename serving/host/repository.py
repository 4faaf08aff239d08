"""Triton's repository: copies of verified version folders, and the config that names them.

Nothing gets here but through `install`, which verifies the package first and the copy after.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from serving.artifact.durable import replace_file, sync_path
from serving.artifact.verify import MANIFEST, Refused, file_sha256, plain_files
from serving.host import state
from serving.host.errors import HostRefusal
from serving.host.home import HostHome
from serving.host.packages import verified_package
from serving.host.trees import copy_tree, remove_tree

CONFIG = "config.pbtxt"
_VERSION = "version/"


def install(home: HostHome, model: str, version: int) -> None:
    """Give Triton the version: a copy of its verified files, moved in whole.

    What is there and equal is not even touched: a changed ctime is a new model to Triton, and a
    flip of loaded versions becomes a reload (measured). What differs is replaced. Raises
    HostRefusal.
    """
    verified_package(home, model, version)
    target = home.installed(model, version)
    if target.is_dir() and not difference(home, model, version):
        return
    area = home.packages / ".installing"
    copied = area / "version"
    remove_tree(area)
    area.mkdir(mode=0o755)
    try:
        copy_tree(home.package(model, version) / "version", copied, 0o444)
        target.parent.mkdir(exist_ok=True)
        remove_tree(target)
        for folder in [path for path in copied.rglob("*") if path.is_dir()]:
            folder.chmod(0o555)
        copied.rename(target)
        target.chmod(0o555)
        sync_path(target.parent)
    finally:
        remove_tree(area)
    fault = difference(home, model, version)
    if fault:
        raise HostRefusal("changed-file", f"Triton's copy of {model}/{version}: {fault}")


def difference(
    home: HostHome, model: str, version: int, touched: Collection[str] | None = None
) -> str:
    """The first difference of Triton's copy from the package's manifest, "" where it has none.

    The manifest must have been verified before. With `touched` only those files are read.
    """
    manifest = json.loads((home.package(model, version) / MANIFEST).read_bytes())
    listed = {
        entry["path"].removeprefix(_VERSION): entry["sha256"]
        for entry in manifest["files"]
        if entry["path"].startswith(_VERSION)
    }
    try:
        present = dict(plain_files(home.installed(model, version)))
    except Refused as refused:
        return str(refused)
    for name in sorted(listed.keys() - present.keys()):
        return f"{name} is missing"
    for name in sorted(present.keys() - listed.keys()):
        return f"{ascii(name)[1:-1]} is not in the manifest"
    for name, digest in sorted(listed.items()):
        if touched is not None and name not in touched:
            continue
        if file_sha256(present[name]) != digest:
            return f"{name} has another sha256 than the manifest"
    return ""


def config_text(home: HostHome, model: str, versions: tuple[int, ...]) -> str:
    """The config.pbtxt that serves `versions`, from the highest one's verified package.

    The number of instances is this host's, where it was given one.
    """
    from serving.triton.model_config import with_instances, with_versions

    text = (home.package(model, max(versions)) / CONFIG).read_text(encoding="utf-8")
    count = state.instances(home, model)
    return with_versions(text if count is None else with_instances(text, count), versions)


def persist(home: HostHome, model: str, versions: tuple[int, ...]) -> None:
    """Write what a restarted Triton will serve; without versions the model leaves the repository.

    Without a config Triton would guess one for the folders that it finds.
    """
    folder = home.repository / model
    if not versions:
        remove_tree(folder)
        return
    text = config_text(home, model, versions)
    if persisted_text(home, model) != text:
        folder.mkdir(exist_ok=True)
        replace_file(folder / CONFIG, text)


def persisted_text(home: HostHome, model: str) -> str | None:
    """The text of the model's config.pbtxt, None where there is none."""
    path = home.repository / model / CONFIG
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def models_in(folder: Path) -> list[Path]:
    """Every entry of a folder of models but hidden ones, in order."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
