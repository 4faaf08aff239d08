"""Accounts of a site's HTTP services: a password for each OS user, in a file that it alone reads.

The file is `<site.paths.passwords>/<service>/<user>`, and the account has the user's name. So a
password is in no config, no command line and no run's settings; a service without such a folder
has no accounts, and is spoken to without one.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import NamedTuple

from conf.user import user_name

MLFLOW, PROMETHEUS, ALERTMANAGER = "mlflow", "prometheus", "alertmanager"
"""Services with accounts, as their folders are called."""


class HttpAccount(NamedTuple):
    """One account of HTTP basic authentication (RFC 7617)."""

    user: str
    password: str

    @property
    def header(self) -> str:
        """Value of the header `Authorization`."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def password_file(folder: Path, service: str, user: str) -> Path:
    """The file with the password of `user` at `service`."""
    return Path(folder) / service / user


def own_account(folder: Path, service: str) -> HttpAccount | None:
    """The account of this process' user at `service`; None where it has none.

    Raises OSError for a file that is there and cannot be read.
    """
    user = user_name(os.geteuid())
    try:
        password = password_file(folder, service, user).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return HttpAccount(user, password)


def set_mlflow_account(folder: Path) -> None:
    """Let MLflow's client in this process log in with this user's own account, if it has one.

    The client takes an account from its environment only. What a person has set there stays.
    """
    if "MLFLOW_TRACKING_USERNAME" in os.environ:
        return
    account = own_account(folder, MLFLOW)
    if account is not None:
        os.environ["MLFLOW_TRACKING_USERNAME"] = account.user
        os.environ["MLFLOW_TRACKING_PASSWORD"] = account.password
