"""The OS users and groups of the site: one per duty, none with a password."""

from __future__ import annotations

import grp
import pwd
import subprocess

from conf.site_schema import Site

OWN = (
    "train",
    "release",
    "sign",
    "candidate",
    "deploy",
    "host",
    "verify",
    "triton",
    "observe",
    "mlflow",
)
"""The identities that the site makes; the others come with the distribution's packages."""

MEMBERS = {"serving": ("host", "triton"), "edge": ("deploy", "haproxy")}
"""Identities in each group of the site."""


def useradd(name: str, login: bool) -> list[str]:
    """The command that makes `name`. The one who may log in by SSH has a shell and no password.

    `*` and not the default `!`: sshd without PAM takes `!` for a locked account and refuses keys.
    The home in passwd is `/`, because several sites on one machine share these users; a session
    gets its real HOME from the site.
    """
    shell = "/bin/bash" if login else "/usr/sbin/nologin"
    return ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/",
            "--shell", shell, "--password", "*", name]  # fmt: skip


LOGIN = ("host", "verify")
"""Identities that may log in by SSH."""


def own_users(site: Site) -> list[tuple[str, bool]]:
    """(user, may log in) of every identity that the site makes."""
    return [(site.users.of(role), role in LOGIN) for role in OWN]


def ensure(site: Site) -> list[str]:
    """Make the users and groups that are missing; returns what was made."""
    made = []
    for name, login in own_users(site):
        if not _exists(name):
            subprocess.run(useradd(name, login), check=True, capture_output=True)
            made.append(name)
    for key, roles in MEMBERS.items():
        group = site.groups.of(key)
        try:
            members = grp.getgrnam(group).gr_mem
        except KeyError:
            subprocess.run(["groupadd", "--system", group], check=True, capture_output=True)
            made.append(group)
            members = []
        for user in (site.users.of(role) for role in roles):
            if user not in members:
                join = ["usermod", "--append", "--groups", group, user]
                subprocess.run(join, check=True, capture_output=True)
    return made


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
