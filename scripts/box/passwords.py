"""Passwords of the site's HTTP services: made once, one file per identity, bcrypt hashes beside.

`keys/passwords/<service>/<user>` is its user's alone; the folders are root's, so that an identity
can use its password and not replace it. Prometheus and Alertmanager read hashes, from `web_config`.
"""

from __future__ import annotations

from pathlib import Path

import bcrypt
import yaml

from conf.credentials import ALERTMANAGER, MLFLOW, PROMETHEUS, password_file
from conf.site_schema import Site
from scripts.box.files import ensure_files
from scripts.box.keys import ensure_secret
from scripts.box.program import File, Folder

ROOT = "root"
"""The one who runs `scripts/site`: probes every service, and is MLflow's administrator."""

ACCOUNTS = {
    MLFLOW: ("train", "release", "deploy", "observe"),
    PROMETHEUS: ("deploy", "observe"),
    ALERTMANAGER: ("observe",),
}
"""Identities with an account at each service, beside root."""

HASHED = (PROMETHEUS, ALERTMANAGER)
"""Services that take hashes of passwords from a file."""

HASH_ROUNDS = 4
"""bcrypt's least work: the passwords are 256 random bits, which no guessing finds."""


def users(site: Site, service: str) -> list[str]:
    """The OS users that have an account at `service`, root first."""
    return [ROOT, *(site.users.of(role) for role in ACCOUNTS[service])]


def folders(site: Site) -> list[Folder]:
    here = site.paths.passwords
    return [Folder(here), *(Folder(here / service) for service in ACCOUNTS)]


def ensure(site: Site) -> None:
    """Make every password that is missing, and the web config of each service that takes one."""
    for service in ACCOUNTS:
        passwords = {
            user: ensure_secret(
                password_file(site.paths.passwords, service, user), user, 32, text=True
            )
            for user in users(site, service)
        }
        if service in HASHED:
            _ensure_web_config(site, service, passwords)


def web_config(site: Site, service: str) -> Path:
    """The file from which `service` takes its users, at every request anew."""
    return site.paths.etc / f"{service}-web.yml"


def _ensure_web_config(site: Site, service: str, passwords: dict[str, bytes]) -> None:
    """https://prometheus.io/docs/prometheus/latest/configuration/https/. A salt is random, so a
    file whose hashes are those of the passwords is kept."""
    path = web_config(site, service)
    known = yaml.safe_load(path.read_text())["basic_auth_users"] if path.exists() else {}
    hashes = {
        user: kept
        if (kept := known.get(user, "")) and bcrypt.checkpw(password, kept.encode())
        else bcrypt.hashpw(password, bcrypt.gensalt(HASH_ROUNDS)).decode()
        for user, password in passwords.items()
    }
    text = "# Written by scripts/site up.\n" + yaml.safe_dump({"basic_auth_users": hashes})
    ensure_files([File(path, text, "root", site.users.observe, 0o640)])
