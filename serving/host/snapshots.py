"""A cheap check of Triton's copies between two verifications: has any file been touched since?

Size, times, inode and mode of every entry, taken where the copy was just found as signed, in
state/<model>.trees.json. A status of the fleet compares them in a moment; only an entry that
differs is read and hashed. Whoever can change a file without a trace there is caught by the daily
verification, which reads all.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from serving.artifact.durable import replace_file
from serving.host import repository
from serving.host.home import HostHome

Tree = dict[str, list[int]]
"""[size, mtime, ctime, inode, mode] of each entry, by its path; a folder has its mode only."""


def remember_tree(home: HostHome, model: str, version: int) -> None:
    """Take the tree of a copy that was found as signed just now."""
    tree = _tree(home.installed(model, version))
    _remember(home, model, version, {"good": tree, "seen": tree, "fault": ""})


def fault_since(home: HostHome, model: str, version: int) -> str:
    """The fault of a copy that is no longer as it was found, "" for none or one never verified."""
    record = _records(home, model).get(str(version))
    if record is None:
        return ""
    now = _tree(home.installed(model, version))
    if now == record["seen"]:
        return str(record["fault"])
    # Against the tree that was good: two changed files are two, also when one is mended.
    good: Tree = record["good"]
    touched = {name for name in now.keys() | good.keys() if now.get(name) != good.get(name)}
    fault = repository.difference(home, model, version, touched)
    _remember(home, model, version, {"good": good if fault else now, "seen": now, "fault": fault})
    return fault


def _tree(folder: Path) -> Tree:
    found: Tree = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            one = path.lstat()
            words = [one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino, one.st_mode]
            found[os.fsencode(path.relative_to(folder)).decode(errors="replace")] = (
                [one.st_mode] if stat.S_ISDIR(one.st_mode) else words
            )
    return found


def _records(home: HostHome, model: str) -> dict[str, Any]:
    try:
        found = json.loads(_path(home, model).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(home: HostHome, model: str, version: int, record: dict[str, Any]) -> None:
    before = _records(home, model)
    kept = {v: one for v, one in before.items() if home.installed(model, int(v)).exists()}
    kept[str(version)] = record
    if kept != before:
        # A lost record costs the cheap check only; a copy without one waits for a verification.
        replace_file(_path(home, model), json.dumps(kept, sort_keys=True), durable=False)


def _path(home: HostHome, model: str) -> Path:
    return home.state / f"{model}.trees.json"
