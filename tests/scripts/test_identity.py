"""Whoever runs a command as an identity gets that identity's environment, and nothing of theirs."""

from __future__ import annotations

import pytest

from conf.site_schema import Site
from scripts.box.identity import command, environment
from scripts.box.program import Refusal
from scripts.box.users import own_users, useradd


def test_the_environment_is_clean(site: Site) -> None:
    caller = {
        "AWS_SECRET_ACCESS_KEY": "canary",
        "PATH": "/evil",
        "TERM": "xterm",
        "PYTHONPATH": "x",
    }
    env = environment(site, "train", caller)
    assert "canary" not in " ".join(env.values())
    assert "/evil" not in env["PATH"]
    assert "PYTHONPATH" not in env
    assert env["TERM"] == "xterm"
    assert env["HOME"] == f"{site.root}/home/train"
    assert env["LOCKGATE_SITE"] == str(site.root)
    assert env["SLURM_CONF"] == str(site.paths.slurm_conf)
    assert env["PATH"].split(":")[0].endswith("/.venv/bin")


def test_a_command_runs_as_the_identitys_user(site: Site) -> None:
    line = command(site, "deploy", ["fab", "plan"], {})
    assert line[:6] == ["runuser", "-u", "lg-deploy", "--", "env", "-i"]
    assert line[-2:] == ["fab", "plan"]


def test_an_unknown_identity_is_answered_with_those_there_are(site: Site) -> None:
    with pytest.raises(Refusal, match="there are train, release, sign, candidate, "):
        command(site, "root", ["id"], {})
    with pytest.raises(Refusal, match="Name the command"):
        command(site, "train", [], {})


def test_only_the_accounts_of_a_serving_host_have_a_shell(site: Site) -> None:
    shells = {name: useradd(name, login)[-4] for name, login in own_users(site)}
    assert [name for name, shell in shells.items() if shell == "/bin/sh"] == [
        "lg-host",
        "lg-verify",
    ]
