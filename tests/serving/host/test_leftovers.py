"""Shared memory that a killed Triton left: removed when nobody has it, and only then."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from serving.host.leftovers import SHM, remove_dead_regions

REPO = Path(__file__).resolve().parents[3]
AS_TRITON = """
import json, mmap, os, sys
from pathlib import Path
from serving.host.leftovers import SHM, remove_dead_regions

prefix = sys.argv[1]
# As a killed server is until it is waited for; its open files are root's to see.
killed = os.fork() or os._exit(0)
os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
for name in ("dead", "mapped", "opened"):
    (SHM / f"{prefix}{name}").write_bytes(bytes(8192))
with (SHM / f"{prefix}mapped").open("r+b") as file:
    shared = mmap.mmap(file.fileno(), 8192)
with (SHM / f"{prefix}opened").open("rb"):
    first = remove_dead_regions(prefix)
shared.close()
print(json.dumps([first, remove_dead_regions(prefix)]))
"""


@pytest.fixture
def prefix():
    made = f"lockgate_test_{secrets.token_hex(6)}_"
    yield made
    for path in SHM.glob(f"{made}*"):
        path.unlink()


def region(name: str) -> Path:
    path = SHM / name
    path.write_bytes(bytes(8192))
    return path


def test_only_regions_that_nobody_has_are_removed(prefix):
    """Beside an ended process that nobody has waited for yet.

    As an identity of its own, like Triton's: root's processes do not all show what they have.
    """
    stranger = region(f"{prefix}stranger")
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = subprocess.run(
        [*(other if os.geteuid() == 0 else []), sys.executable, "-B", "-c", AS_TRITON, prefix],
        cwd=REPO, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, then = json.loads(done.stdout)
    names = {name.removeprefix(prefix) for name in first}
    assert names == {"dead"} | (set() if os.geteuid() == 0 else {"stranger"})
    assert {name.removeprefix(prefix) for name in then} == {"mapped", "opened"}
    assert stranger.exists() == (os.geteuid() == 0)


def test_links_and_the_regions_of_no_prefix_stay(prefix, tmp_path):
    link = SHM / f"{prefix}link"
    link.symlink_to(tmp_path)
    assert remove_dead_regions(prefix) == [] == remove_dead_regions("")
    assert link.is_symlink()
