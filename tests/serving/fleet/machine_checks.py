"""Checks of what a bootstrap wants of a machine, be it a serving host or an edge."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from serving.fleet.bootstrap.facts import HostFact, HostUnit

EXPOSURE = 3.0


def check_made_in_order(facts: Iterable[HostFact], there: Iterable[str]) -> None:
    """Every parent, and every file that a unit has read, is `there` or made before it."""
    seen = set(there)
    for fact in facts:
        path = getattr(fact, "path", "")
        if path:
            assert str(Path(path).parent) in seen, path
            seen.add(path)
        for read in getattr(fact, "files", ()) if isinstance(fact, HostUnit) else ():
            assert read in seen, (fact, read)


def check_hardened(path: Path, text: str) -> None:
    """The unit `text`, written to `path`, is at most as exposed as ours may be."""
    path.write_text(text)
    shown = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(path)],
        capture_output=True, text=True,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown.stdout)
    assert found and float(found[1]) <= EXPOSURE, shown.stdout + shown.stderr


def sshd_config(folder: Path, options: str) -> Path:
    """A config of sshd with a new host key and these lines."""
    key, config = folder / "key", folder / "sshd_config"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    config.write_text(f"HostKey {key}\n{options}")
    return config


def sshd_options_of(config: Path, user: str) -> dict[str, str]:
    """The options that sshd has for `user`, by their names in small letters."""
    shown = subprocess.run(
        ["/usr/sbin/sshd", "-T", "-f", str(config), "-C", f"user={user},host=h,addr=10.0.0.1"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)
