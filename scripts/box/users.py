"""The OS users and groups of the site: one per duty, none with a password."""

from __future__ import annotations

import grp
import pwd
import subprocess

from conf.site_schema import Site
from serving.fleet.bootstrap.ssh_access import LOGIN_SHELL

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

MEMBERS: dict[str, tuple[str, ...]] = {
    "serving": ("verify", "triton"),
    "edge": ("deploy", "haproxy"),
}
"""Identities in each group of the site; no other identity of the site is in it."""

OPENED: dict[str, tuple[str, ...]] = {"host": ("verify",)}
"""Identities in the own group of another: the verifier takes packages out of where they arrive."""


def useradd(name: str, login: bool) -> list[str]:
    """The command that makes `name`. The one who may log in by SSH has a shell and no password.

    That is plain sh, which reads no file of anybody's before the one command it may run.
    `*` and not the default `!`: sshd without PAM takes `!` for a locked account and refuses keys.
    The home in passwd is `/`, because several sites on one machine share these users; a session
    gets its real HOME from the site.
    """
    shell = LOGIN_SHELL if login else "/usr/sbin/nologin"
    return ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/",
            "--shell", shell, "--password", "*", name]  # fmt: skip


LOGIN = ("host", "verify")
"""Identities that may log in by SSH."""


def own_users(site: Site) -> list[tuple[str, bool]]:
    """(user, may log in) of every identity that the site makes."""
    return [(site.users.of(role), role in LOGIN) for role in OWN]


def ensure(site: Site) -> list[str]:
    """Make the users and groups that are missing, and mend the rest; returns what was made."""
    made = []
    for name, login in own_users(site):
        if not _exists(name):
            _run(useradd(name, login))
            made.append(name)
        elif login and pwd.getpwnam(name).pw_shell != LOGIN_SHELL:
            _run(["usermod", "--shell", LOGIN_SHELL, name])
    own = {user for user, _ in own_users(site)}
    for key, roles in MEMBERS.items():
        group = site.groups.of(key)
        wanted = [site.users.of(role) for role in roles]
        try:
            members = grp.getgrnam(group).gr_mem
        except KeyError:
            _run(["groupadd", "--system", group])
            made.append(group)
            members = []
        _join(group, [user for user in wanted if user not in members])
        for user in own.intersection(members) - set(wanted):
            _run(["gpasswd", "--delete", user, group])
    for role, roles in OPENED.items():
        group = site.users.of(role)
        wanted = [site.users.of(member) for member in roles]
        _join(group, [user for user in wanted if user not in grp.getgrnam(group).gr_mem])
    return made


def _join(group: str, users: list[str]) -> None:
    for user in users:
        _run(["usermod", "--append", "--groups", group, user])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
