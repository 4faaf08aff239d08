"""The MLflow server: experiments and the registry of versions, in SQLite, artifacts beside it.

A user and a folder of its own, and an account for each identity (MLflow's basic-auth app,
https://mlflow.org/docs/latest/self-hosting/security/basic-http-auth/): nobody writes without one.
"""

from __future__ import annotations

import json
import pwd
import subprocess
from functools import partial
from pathlib import Path

from conf.credentials import MLFLOW, own_account, password_file
from conf.site_schema import Site
from scripts.box import passwords
from scripts.box.files import hand_over
from scripts.box.identity import REPO, environment
from scripts.box.keys import ensure_secret
from scripts.box.probe import http_ok
from scripts.box.program import File, Folder, Port, Program

LOOPBACK = "127.0.0.1"

GRANTS: dict[str, dict[str, str]] = {
    "train": {"experiment": "MANAGE", "registered_model": "DENY"},
    "release": {"registered_model": "MANAGE"},
    "deploy": {"registered_model": "EDIT"},
    "observe": {},
}
"""Rights by identity and kind of thing, beside reading everything: training writes runs and never
the registry, a release registers versions, a deployment moves the alias `production`."""


def folders(site: Site) -> list[Folder]:
    user = site.users.mlflow
    return [Folder(site.paths.mlflow, user, user, 0o700)]


def ensure_owned(site: Site) -> None:
    """Hand over what an older site's MLflow, which ran as another user, has left."""
    hand_over(site.paths.mlflow, site.users.mlflow)


def ensure_key(site: Site) -> None:
    """Make the key of the server's form tokens, which it does not start without."""
    ensure_secret(_key_file(site), "root", 32, text=True)


def _key_file(site: Site) -> Path:
    return site.paths.passwords / MLFLOW / ".server-key"


def _accounts_database(site: Site) -> str:
    return f"sqlite:///{site.paths.mlflow / 'accounts.db'}"


def auth_ini(site: Site) -> str:
    """The configuration of MLflow's basic-auth app."""
    return "\n".join(
        [
            "# Written by scripts/site up; edit conf/site, not this file.",
            "[mlflow]",
            # Who has an account reads everything that is not denied to it.
            "default_permission = READ",
            f"database_uri = {_accounts_database(site).replace('%', '%%')}",
            f"admin_username = {passwords.ROOT}",
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
            # A password's hash is slow to check by intent; a job logs many times a minute.
            "auth_cache_ttl_seconds = 60",
            "",
        ]
    )


def accounts(site: Site) -> str:
    """Standard input of `scripts.box.mlflow_accounts`: every account with its password."""
    roles = {site.users.of(role): role for role in passwords.ACCOUNTS[MLFLOW]}
    return json.dumps(
        {
            "database": _accounts_database(site),
            "accounts": [
                {
                    "user": user,
                    "password": password_file(site.paths.passwords, MLFLOW, user).read_text(),
                    "admin": user == passwords.ROOT,
                    "grants": GRANTS[roles[user]] if user in roles else {},
                }
                for user in passwords.users(site, MLFLOW)
            ],
        }
    )


def ensure_accounts(site: Site) -> None:
    """Write the accounts into the server's database, as its own user."""
    user = pwd.getpwnam(site.users.mlflow)
    subprocess.run(
        [str(REPO / ".venv/bin/python"), "-m", "scripts.box.mlflow_accounts"],
        input=accounts(site), text=True, capture_output=True, check=True, cwd=REPO,
        env=_environment(site), user=user.pw_uid, group=user.pw_gid, extra_groups=[],
    )  # fmt: skip


def _environment(site: Site) -> dict[str, str]:
    key = _key_file(site)
    return {
        **environment(site, "mlflow"),
        "MLFLOW_AUTH_CONFIG_PATH": str(site.paths.etc / "mlflow-auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": key.read_text() if key.exists() else "",
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


def _sandbox(site: Site) -> list[str]:
    """bubblewrap around the server: it is a large web application with many hands on it.

    It reads the system, the checkout with its environment and its own config, and writes its own
    folder; no other process, and nothing else of the site, is there for it. Its port is loopback's,
    so the network is not taken away. https://github.com/containers/bubblewrap
    """
    config = str(site.paths.etc / "mlflow-auth.ini")
    environment_folder = str((REPO / ".venv").resolve())
    writable = (site.paths.mlflow, site.root / "home" / "mlflow")
    return [
        *("/usr/bin/bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *("--disable-userns", "--die-with-parent", "--chdir", "/"),
        *("--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc"),
        *("--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
        *("--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev"),
        *("--tmpfs", "/tmp", "--tmpfs", "/dev/shm"),
        *("--ro-bind", str(REPO), str(REPO)),
        # The environment may be a link out of the checkout, as in a worktree of it.
        *("--ro-bind", environment_folder, environment_folder),
        # The box's own state may lie in the checkout: hidden, but for what follows.
        *("--tmpfs", str(site.root), "--ro-bind", config, config),
        *(word for path in writable for word in ("--bind", str(path), str(path))),
    ]


def programs(site: Site) -> list[Program]:
    port, here = site.ports.mlflow, site.paths.mlflow
    return [
        Program(
            name="mlflow",
            argv=(
                *_sandbox(site),
                str(REPO / ".venv/bin/mlflow"), "server", "--app-name", "basic-auth",
                "--host", LOOPBACK, "--port", str(port),
                "--backend-store-uri", f"sqlite:///{here / 'mlflow.db'}",
                # Clients send artifacts to the server: they need no access to its folder.
                "--artifacts-destination", str(here / "artifacts"),
                "--workers", "1",
                # MLflow refuses requests whose Host header it does not know, against DNS rebinding.
                "--allowed-hosts", f"{LOOPBACK}:{port},localhost:{port}",
            ),
            user=site.users.mlflow,
            env=_environment(site),
            files=(File(site.paths.etc / "mlflow-auth.ini", auth_ini(site)),),
            ports=(Port(LOOPBACK, port, "site.ports.mlflow"),),
            before=lambda: ensure_accounts(site),
            # With root's account, so that it is healthy only when accounts work.
            probe=http_ok(
                f"http://{LOOPBACK}:{port}/api/2.0/mlflow/experiments/get?experiment_id=0",
                partial(own_account, site.paths.passwords, MLFLOW),
            ),
            kills_group=True,
        )
    ]  # fmt: skip
