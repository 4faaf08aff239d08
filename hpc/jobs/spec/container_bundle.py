"""An OCI bundle (config.json and a root file system): its digest, and whether a job can work in it.

See https://github.com/opencontainers/runtime-spec/blob/main/bundle.md. Slurm takes the bundle as it
is, with its mounts and namespaces; only command, variables and working folder are the job's.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from conf.errors import ConfigError
from hpc.jobs.spec.config import ClusterConfig
from serving.artifact.digest import bytes_sha256, file_sha256, pairs_digest

CONFIG = "config.json"
LIMIT_BYTES = 1 << 20


def bundle_digest(bundle: Path, cluster: ClusterConfig) -> str:
    """The digest of config.json and of the root file system; folders that it mounts do not count.

    Raises `ConfigError` for a folder that is no bundle, or in which a job could not work, and
    OSError for one that cannot be read.
    """
    file = bundle / CONFIG
    if not file.is_file():
        raise ConfigError(
            f"cluster.container={bundle} is no OCI bundle: there is no {CONFIG} in it. "
            "Make one: umoci unpack, or crun spec beside a rootfs folder"
        )
    content = file.read_bytes()[: LIMIT_BYTES + 1]
    config = _config(bundle, content)
    root = _root(bundle, config)
    if fault := bundle_fault(config, root, cluster):
        raise ConfigError(f"cluster.container={bundle}: {fault}")
    return pairs_digest([(CONFIG, bytes_sha256(content)), ("rootfs", folder_digest(root))])


def folder_digest(folder: Path) -> str:
    """The digest of every entry below `folder`: path, kind, right to execute, bytes or target.

    A file that this user may not read counts by its path: its job cannot read it either. Raises
    OSError where the folder itself cannot be read.
    """
    return pairs_digest(_entries(folder, ""))


def bundle_fault(config: Mapping[str, Any], root: Path, cluster: ClusterConfig) -> str:
    """The reason why a job could not work in the bundle; empty for none."""
    linux = config.get("linux")
    namespaces = linux.get("namespaces") if isinstance(linux, dict) else None
    for one in _mappings(namespaces):
        if one.get("type") == "network" and not one.get("path"):
            return (
                f"its {CONFIG} makes a network of its own, in which ranks cannot find each other; "
                'take {"type": "network"} out of linux.namespaces'
            )
    mounts = list(_mappings(config.get("mounts")))
    missing = [folder for folder in cluster.container_mounts if not _is_bound(folder, mounts)]
    if missing:
        return (
            f"its {CONFIG} does not bind {', '.join(missing)} to the same path, and a job works "
            "there; add a mount with type bind (see docs/researcher.md), or take the folder off "
            "cluster.container_mounts"
        )
    python = cluster.container_python or sys.executable
    if python.startswith("/") and not _has(python, root, mounts):
        return (
            f"there is no {python} in it; name its interpreter, as in "
            "cluster.container_python=python3"
        )
    return ""


def _config(bundle: Path, content: bytes) -> dict[str, Any]:
    try:
        config = json.loads(content) if len(content) <= LIMIT_BYTES else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ConfigError(f"cluster.container={bundle}: {CONFIG} is not the JSON of a bundle")
    return config


def _root(bundle: Path, config: Mapping[str, Any]) -> Path:
    """The root file system. It lies inside, so that a digest of the bundle is one of all of it."""
    named = config.get("root")
    path = named.get("path", "rootfs") if isinstance(named, dict) else "rootfs"
    root = (bundle / str(path)).resolve()
    if not root.is_dir() or bundle.resolve() not in root.parents:
        raise ConfigError(
            f"cluster.container={bundle}: root.path of {CONFIG} must be a folder inside the bundle"
        )
    return root


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, dict))


def _is_bound(folder: str, mounts: list[Mapping[str, Any]]) -> bool:
    """True where the last mount over `folder` shows the same folder of the node."""
    above = [one for one in mounts if _below(folder, str(one.get("destination", "")))]
    return bool(above) and above[-1].get("source") == above[-1].get("destination")


def _has(program: str, root: Path, mounts: list[Mapping[str, Any]]) -> bool:
    if any(_below(program, str(one.get("destination", ""))) for one in mounts):
        return True
    return os.path.lexists(root / program.lstrip("/"))


def _below(path: str, folder: str) -> bool:
    return folder.startswith("/") and PurePosixPath(path).is_relative_to(PurePosixPath(folder))


def _entries(folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """(path with kind, sha256) of each entry; a loop is none, since no link is followed."""
    with os.scandir(folder) as found:
        for entry in found:
            name, mode = f"{prefix}{entry.name}", entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                target = os.fsencode(Path(entry.path).readlink())
                yield f"link {name}", bytes_sha256(target)
            elif stat.S_ISDIR(mode):
                yield f"folder {name}", ""
                if os.access(entry.path, os.R_OK | os.X_OK):
                    yield from _entries(Path(entry.path), f"{name}/")
            elif stat.S_ISREG(mode):
                kind = "program" if mode & 0o111 else "file"
                readable = os.access(entry.path, os.R_OK)
                yield f"{kind} {name}", file_sha256(Path(entry.path)) if readable else ""
            else:
                yield f"{stat.S_IFMT(mode):o} {name}", ""
