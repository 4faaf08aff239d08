"""Identities of the site: a clean environment for each, and `scripts/site as`."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from pathlib import Path

from conf.site_schema import Site
from scripts.box.program import Folder, Refusal
from scripts.box.users import OWN

REPO = Path(__file__).resolve().parents[2]

KEPT = ("TERM", "COLUMNS", "LINES", "NO_COLOR", "TZ", "LOCKGATE_PROJECT")
"""Variables that `scripts/site as` takes over from the caller: the terminal's, and the project."""


def environment(site: Site, role: str, caller: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of a command run as `role`."""
    user = site.users.of(role)
    kept = {key: value for key, value in (caller or {}).items() if key in KEPT}
    return {
        **kept,
        "PATH": f"{REPO}/.venv/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(site.root / "home" / role),
        "USER": user,
        "LOGNAME": user,
        "LANG": "C.UTF-8",
        "LOCKGATE_SITE": str(site.root),
        "SLURM_CONF": str(site.paths.slurm_conf),
        # Identities cannot write into the checkout; do not let Python try for every import.
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def folders(site: Site) -> list[Folder]:
    made = [Folder(site.root / "home")]
    for role in OWN:
        user = site.users.of(role)
        made.append(Folder(site.root / "home" / role, user, user, 0o700))
    return made


def command(site: Site, role: str, argv: Sequence[str], caller: Mapping[str, str]) -> list[str]:
    """The command line that runs `argv` as `role`. Raises Refusal for an unknown role."""
    if role not in OWN:
        raise Refusal(f"{role}: there is no such identity; there are {', '.join(OWN)}.")
    if not argv:
        raise Refusal(
            f"scripts/site as {role}: no command. Name the command, as in `as {role} id`."
        )
    pairs = [f"{key}={value}" for key, value in environment(site, role, caller).items()]
    return ["runuser", "-u", site.users.of(role), "--", "env", "-i", *pairs, *argv]


def run_as(site: Site, role: str, argv: Sequence[str]) -> None:
    """Become `role` and run `argv` in place of this process. Raises Refusal where it cannot."""
    line = command(site, role, argv, os.environ)
    user = site.users.of(role)
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        raise Refusal(f"there is no user {user} yet: run scripts/site up first.") from None
    if os.geteuid() == uid:
        line = line[4:]
    elif os.geteuid() != 0:
        raise Refusal(f"only root can run commands as {user}: use sudo.")
    os.chdir(REPO)
    os.execvp(line[0], line)
