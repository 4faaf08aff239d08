"""Confinement for tests: the user nobody stands for a site's `candidate`."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conf import compose
from conf.schema import from_config
from serving.triton.confinement import Confinement, ConfinementLimits
from serving.triton.ephemeral import ServerPatience

USER = "nobody"
PATIENCE = ServerPatience(start_timeout_s=120, request_timeout_s=60, answer_mib=64)


def make_gates_folder(folder: Path) -> Path:
    """The folder `paths.gates` as a site makes it, for USER; skips without root."""
    if os.geteuid() != 0:
        pytest.skip("only root can run a server as another user here")
    folder.mkdir(exist_ok=True)
    os.chown(folder, os.geteuid(), pwd.getpwnam(USER).pw_gid)
    folder.chmod(0o2710)
    return folder


@contextmanager
def confinement(*, read_only: tuple[Path, ...] = (), **limits: Any) -> Iterator[Confinement]:
    """A confinement with the limits of conf/release.yaml but `limits`, its folder removed after.

    Not below pytest's own folders, which nobody else can enter.
    """
    given = compose("release", ["run=none"]).ephemeral.limits
    bounds = from_config(ConfinementLimits, given, "limits")
    folder = make_gates_folder(Path(tempfile.mkdtemp(prefix="lockgate-gates-")))
    try:
        yield Confinement(USER, folder, replace(bounds, **limits), read_only)
    finally:
        shutil.rmtree(folder)


def group_of_user() -> str:
    """The name of USER's own group."""
    return grp.getgrgid(pwd.getpwnam(USER).pw_gid).gr_name
