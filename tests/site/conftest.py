"""The box that site tests use. It is brought up once per session, and left up."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conf import compose
from conf.site_schema import Site, site_config

REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Box:
    """The site in a box as a person has it: commands and their output."""

    site: Site

    def command(self, *argv: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """The completed process of `scripts/site ...`, whatever its exit code."""
        return subprocess.run(
            [str(REPO / "scripts/site"), *argv], cwd=REPO, text=True, capture_output=True,
            timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, role: str, *argv: str, timeout: float = 300) -> str:
        """The output of a command run as `role`; fails the test with that output otherwise."""
        done = self.command("as", role, *argv, timeout=timeout)
        assert done.returncode == 0, f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def status(self) -> dict[str, Any]:
        """`scripts/site status --json`, parsed."""
        answer: dict[str, Any] = json.loads(self.command("status", "--json").stdout)
        return answer

    def pids(self) -> dict[str, int]:
        """Each daemon's process."""
        return {daemon["name"]: daemon["pid"] for daemon in self.status()["daemons"]}


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    """The box, up and healthy."""
    if os.geteuid() != 0:
        pytest.skip("the box needs root")
    box = Box(site_config(compose("site")))
    up = box.command("up")
    assert up.returncode == 0, f"{up.stdout}{up.stderr}"
    yield box
