"""Passwords of the HTTP services: one file per identity, hashes that stay, nothing in a config."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import bcrypt
import pytest
import yaml

from conf.credentials import MLFLOW, PROMETHEUS, password_file
from conf.site_schema import Site, SiteUsers
from scripts.box import passwords
from scripts.box.files import ensure_folders
from scripts.box.program import Folder
from scripts.box.programs import all_files, all_folders, all_programs
from scripts.box.supervisor import site_conf

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of other users need root")


@pytest.fixture
def made(site: Site) -> Site:
    """A site with its passwords, whose identities are users that every machine has."""
    plain = ("daemon", "bin", "sys", "games", "man", "lp", "mail", "news", "uucp", "proxy",
             "www-data", "backup", "list", "irc")  # fmt: skip
    names = dict(zip(vars(site.users), plain, strict=True))
    made = replace(site, users=SiteUsers(**names))
    made.paths.etc.mkdir(parents=True)
    ensure_folders([Folder(made.paths.passwords.parent), *passwords.folders(made)])
    passwords.ensure(made)
    return made


@needs_root
def test_each_password_is_its_users_alone(made: Site) -> None:
    file = password_file(made.paths.passwords, MLFLOW, made.users.train)
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert file.owner() == made.users.train
    assert file.parent.owner() == "root" and file.parent.stat().st_mode & 0o022 == 0
    every = [path.read_text() for path in made.paths.passwords.glob("*/*")]
    assert len(every) == len(set(every)) == sum(len(passwords.users(made, one))
                                                for one in passwords.ACCOUNTS)  # fmt: skip


@needs_root
def test_the_web_config_has_the_hashes_of_the_passwords_and_stays_as_it_is(made: Site) -> None:
    path = passwords.web_config(made, PROMETHEUS)
    before = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    hashes = yaml.safe_load(before)["basic_auth_users"]
    assert sorted(hashes) == sorted(["root", made.users.deploy, made.users.observe])
    for user, kept in hashes.items():
        password = password_file(made.paths.passwords, PROMETHEUS, user).read_bytes()
        assert bcrypt.checkpw(password, kept.encode())
    passwords.ensure(made)
    assert path.read_text() == before
    password_file(made.paths.passwords, PROMETHEUS, made.users.observe).unlink()
    passwords.ensure(made)
    changed = yaml.safe_load(path.read_text())["basic_auth_users"]
    assert [user for user in hashes if hashes[user] != changed[user]] == [made.users.observe]


@needs_root
def test_no_config_and_no_command_line_has_a_password(made: Site) -> None:
    programs = all_programs(made)
    shown = site_conf(made, programs) + "".join(one.text for one in all_files(made, programs))
    secrets = [path.read_text() for path in made.paths.passwords.glob("*/*")]
    assert secrets and not [one for one in secrets if one in shown]


def test_the_folders_of_passwords_are_roots(site: Site) -> None:
    owners = {folder.path: (folder.owner, folder.mode) for folder in all_folders(site)}
    here: Path = site.paths.passwords
    assert {owners[here / one] for one in passwords.ACCOUNTS} == {("root", 0o755)}
    assert owners[site.paths.mlflow] == ("lg-mlflow", 0o700)
