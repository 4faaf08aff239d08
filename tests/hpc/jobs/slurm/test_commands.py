"""Slurm's commands run with a config that its owner, root or the caller, alone can change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpc.jobs.errors import SchedulerUnavailable
from hpc.jobs.slurm.commands import query

PROGRAM = ["true"]


def config_in(folder: Path) -> Path:
    path = folder / "slurm.conf"
    path.write_text("PluginDir=/somebody/elses\n")
    return path


def test_ones_own_config_is_used(tmp_path: Path) -> None:
    assert query(PROGRAM, {"SLURM_CONF": str(config_in(tmp_path))}) == ""


@pytest.mark.parametrize("shared", ["file", "folder", "behind a link"])
def test_a_config_that_others_can_change_is_not_used(
    tmp_path: Path, shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    path = config_in(folder)
    (path if shared == "file" else folder).chmod(0o777)
    if shared == "behind a link":
        link = tmp_path / "slurm.conf"
        link.symlink_to(path)
        path = link
    with pytest.raises(SchedulerUnavailable, match="can be changed by others"):
        query(PROGRAM, {"SLURM_CONF": str(path)})
    # A person who exports it has chosen.
    monkeypatch.setenv("SLURM_CONF", str(path))
    assert query(PROGRAM, {"SLURM_CONF": str(path)}) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_another_users_config_is_not_used(tmp_path: Path) -> None:
    path = config_in(tmp_path)
    os.chown(path, 65534, -1)
    with pytest.raises(SchedulerUnavailable, match="can be changed by others"):
        query(PROGRAM, {"SLURM_CONF": str(path)})
