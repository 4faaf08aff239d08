"""Leftovers on a host: shared memory of a Triton that was killed, folders of commands that were.

A killed Triton leaves its regions in /dev/shm, and there is no more room for the next one's. They
belong to Triton's identity, which alone may remove them, so that it does at each of its starts; the
verifier removes what is its own.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from serving.host.home import HostHome
from serving.host.running import server_pid
from serving.host.trees import remove_tree

SHM = Path("/dev/shm")
_PREFIX = "--backend-config=python,shm-region-prefix-name="


def region_prefix(home: HostHome) -> str:
    """The prefix of the names of this host's regions, "" where its Triton is given none."""
    found = [word.removeprefix(_PREFIX) for word in home.triton if word.startswith(_PREFIX)]
    return found[-1] if found else ""


def remove_dead_regions(prefix: str, folder: Path = SHM) -> list[str]:
    """Remove our own regions with this prefix that no process has mapped or open; their names.

    Nothing where one of our own processes does not show what it has.
    """
    if not prefix:
        return []
    regions = [
        path
        for path in folder.glob(f"{prefix}*")
        if path.lstat().st_uid == os.geteuid() and path.is_file() and not path.is_symlink()
    ]
    try:
        used = _used_files(str(folder)) if regions else set()
    except PermissionError:
        return []
    removed = []
    for path in regions:
        if str(path) not in used:
            path.unlink(missing_ok=True)
            removed.append(path.name)
    return sorted(removed)


def old_regions(home: HostHome, folder: Path = SHM) -> dict[str, int]:
    """Number and bytes of this host's regions that are older than its Triton: a restart frees them.

    All of them where no Triton runs.
    """
    prefix, started = region_prefix(home), float("inf")
    with suppress(OSError):
        pid = server_pid(home)
        started = _started(pid) if pid else started
    sizes = []
    for path in folder.glob(f"{prefix}*") if prefix else ():
        with suppress(FileNotFoundError):
            status = path.lstat()
            if status.st_ctime < started and status.st_mtime < started:
                sizes.append(status.st_blocks * 512)
    return {"number": len(sizes), "bytes": sum(sizes)}


def _started(pid: int) -> float:
    """The start of a process in seconds since the epoch, to the second before. Raises OSError.

    The times of /proc/PID are those of its entry in the kernel's cache, and may be any later time.
    """
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + int(fields[19]) / os.sysconf("SC_CLK_TCK") - 1


def remove_rubbish(home: HostHome) -> list[str]:
    """Remove what ended commands left in the verifier's areas and in staging; the names of it.

    The caller holds the host, so that no command is at work there.
    """
    found = [home.packages / ".verifying", home.packages / ".installing"]
    found += sorted(home.staging.glob(".left-*"))
    removed = []
    for path in found:
        if path.exists() or path.is_symlink():
            with suppress(PermissionError):  # made its own by the account that receives
                remove_tree(path)
                removed.append(str(path.relative_to(home.root)))
    return removed


def _used_files(folder: str) -> set[str]:
    """The files below `folder` that a process of ours has mapped or open. Raises PermissionError.

    Another identity's processes cannot have ours: their mode is for the owner alone.
    """
    used: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == os.geteuid():
                used |= _files_of(process, folder)
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            if not _has_ended(process):
                raise
    return used


def _files_of(process: Path, folder: str) -> set[str]:
    """The files below `folder` that one process has mapped or open. Raises OSError."""
    used: set[str] = set()
    for line in (process / "maps").read_text(errors="replace").splitlines():
        _, found, name = line.partition(f"{folder}/")
        if found:
            used.add(f"{folder}/{name.removesuffix(' (deleted)')}")
    for handle in (process / "fd").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            used.add(str(handle.readlink()))
    return used


def _has_ended(process: Path) -> bool:
    """True of a process that gave its memory back, until its parent waits for it.

    The kernel gives the folder of its open files to root, so that its own identity may not list it
    (task_dump_owner in fs/proc/base.c); a killed server is one until somebody reaps it.
    """
    try:
        return (process / "statm").read_text().split()[0] == "0"
    except (FileNotFoundError, ProcessLookupError):
        return True
