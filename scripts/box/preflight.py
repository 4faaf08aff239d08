"""Checks before anything is started; each refusal is one line with what to do."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from conf.site_schema import Site
from scripts.box.program import Refusal

PACKAGE_OF = {
    "/usr/sbin/munged": "munge",
    "/usr/sbin/mariadbd": "mariadb-server",
    "/usr/bin/mariadb-install-db": "mariadb-server",
    "/usr/bin/mariadb-admin": "mariadb-client",
    "/usr/sbin/slurmdbd": "slurmdbd",
    "/usr/sbin/slurmctld": "slurmctld",
    "/usr/sbin/slurmd": "slurmd",
    "/usr/bin/sinfo": "slurm-client",
    "/usr/sbin/sshd": "openssh-server",
    "/usr/bin/ssh-keygen": "openssh-client",
    "/usr/sbin/haproxy": "haproxy",
    "/usr/bin/prometheus": "prometheus",
    "/usr/bin/prometheus-alertmanager": "prometheus-alertmanager",
    "/usr/bin/prometheus-node-exporter": "prometheus-node-exporter",
    "/usr/bin/setpriv": "util-linux",
    "/usr/bin/bwrap": "bubblewrap",
    "/usr/sbin/runc": "runc",
    "/usr/bin/sudo": "sudo",
    "/usr/sbin/visudo": "sudo",
}
"""Debian or Ubuntu package of each program of the box."""

SOCKET_LIMIT = 107 - len("/hosts/use1-a/run/supervisor.sock.12345.tmp") - 12
"""Longest path of the site's root, in bytes: Linux limits that of a unix socket to 107."""


def check_machine(site: Site, repo: Path) -> None:
    """Raises Refusal for the first thing that keeps the box from coming up."""
    refuse_without_root()
    refuse_missing(PACKAGE_OF)
    refuse_half_setup(site.serving_env)
    refuse_long_root(site.root)
    for path in (repo, site.root, site.serving_env):
        refuse_closed(path)


def refuse_without_root() -> None:
    if os.geteuid() != 0:
        raise Refusal(
            "the box needs root (users, Slurm, sshd): use sudo. Without root, train with "
            "cluster=local, which needs no daemon."
        )


def refuse_missing(package_of: dict[str, str]) -> None:
    """Raises Refusal naming what is not installed and the command that installs it."""
    missing = [path for path in package_of if not shutil.which(path)]
    if missing:
        packages = sorted({package_of[path] for path in missing})
        names = ", ".join(Path(path).name for path in missing)
        raise Refusal(
            f"not installed: {names}. Run scripts/setup, or "
            f"apt-get install --no-install-recommends {' '.join(packages)}"
        )


def refuse_half_setup(serving_env: Path) -> None:
    if not (serving_env / ".lockgate-installed").exists():
        raise Refusal(f"{serving_env} is missing or half-made: run scripts/setup first.")


def refuse_long_root(root: Path) -> None:
    if len(str(root)) > SOCKET_LIMIT:
        raise Refusal(
            f"the site's path is too long for unix sockets ({len(str(root))} bytes, at most "
            f"{SOCKET_LIMIT}): {root}. Set LOCKGATE_SITE to a shorter one, such as /srv/lockgate."
        )


def refuse_closed(path: Path) -> None:
    """Raises Refusal where a parent of `path` keeps other users out: the box has ten of them."""
    for folder in reversed([path, *path.parents]):
        if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH:
            raise Refusal(
                f"{folder} (mode {stat.S_IMODE(folder.stat().st_mode):04o}) keeps the site's users "
                f"out of {path}: move the checkout to a path that everybody may enter, such as "
                f"/srv/lockgate, or chmod o+x {folder}"
            )
