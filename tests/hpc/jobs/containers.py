"""An OCI bundle of the host's own programs, for tests of containers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def bind(folder: str, *options: str) -> dict[str, Any]:
    return {"destination": folder, "type": "bind", "source": folder, "options": ["rbind", *options]}


def bundle_config(folders: Sequence[str], uid: int = 1000, gid: int = 1000) -> dict[str, Any]:
    """config.json of a bundle with the host's /usr and /etc, and `folders` to work in.

    Its root is the user outside: runc without root has no other user to map.
    """
    return {
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/",
            "env": ["PATH=/usr/bin"], "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "in-a-container",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmp", "options": ["mode=1777"]},
            bind("/usr", "ro"),
            bind("/etc", "ro"),
            *(bind(folder) for folder in folders),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "user")],
            "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": gid, "size": 1}],
        },
    }  # fmt: skip


def make_bundle(bundle: Path, config: dict[str, Any]) -> Path:
    """Write the bundle; its root has the mount points, and a file that the host does not have."""
    rootfs = bundle / "rootfs"
    for mount in config["mounts"]:
        (rootfs / mount["destination"].lstrip("/")).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (rootfs / name).symlink_to(f"usr/{name}")
    (rootfs / "this-is-the-image").write_text("yes\n")
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle
