"""Shared memory that a killed Triton left: removed when nobody has it, and only then."""

from __future__ import annotations

import mmap
import os
import secrets
from pathlib import Path

import pytest

from serving.host.leftovers import SHM, remove_dead_regions


@pytest.fixture
def prefix():
    made = f"lockgate_test_{secrets.token_hex(6)}_"
    yield made
    for path in SHM.glob(f"{made}*"):
        path.unlink()


def region(name: str) -> Path:
    path = SHM / name
    path.write_bytes(b"\0" * 8192)
    path.chmod(0o600)
    return path


def test_only_regions_that_nobody_has_are_removed(prefix):
    dead, mapped, opened = (region(f"{prefix}{name}") for name in ("dead", "mapped", "opened"))
    foreign = region(f"lockgate_other_{secrets.token_hex(6)}")
    try:
        with mapped.open("r+b") as file:
            shared = mmap.mmap(file.fileno(), 8192)
        with opened.open("rb"):
            assert remove_dead_regions(prefix) == [dead.name]
        assert mapped.exists() and opened.exists() and foreign.exists()
        shared.close()
        assert remove_dead_regions(prefix) == sorted([mapped.name, opened.name])
        assert foreign.exists()
    finally:
        foreign.unlink()


def test_another_identitys_regions_and_links_stay(prefix, tmp_path):
    link = SHM / f"{prefix}link"
    link.symlink_to(tmp_path)
    stranger = region(f"{prefix}stranger")
    if os.geteuid() == 0:
        os.chown(stranger, 65534, 65534)
        assert remove_dead_regions(prefix) == [] and stranger.exists()
    assert remove_dead_regions("") == [] and link.is_symlink()
