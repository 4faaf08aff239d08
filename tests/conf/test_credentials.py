"""Accounts of HTTP services: the file of the process' own user, and nothing where it has none."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from conf.credentials import MLFLOW, HttpAccount, own_account, password_file, set_mlflow_account

ME = pwd.getpwuid(os.geteuid()).pw_name
NAMES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in NAMES:
        monkeypatch.setenv(name, "removed at the end, whatever the test sets")
        monkeypatch.delenv(name)
    file = password_file(tmp_path, MLFLOW, ME)
    file.parent.mkdir()
    file.write_text("s3cret\n")
    return tmp_path


def test_the_account_is_that_of_the_processs_user(folder: Path) -> None:
    assert own_account(folder, MLFLOW) == HttpAccount(ME, "s3cret")
    assert own_account(folder, "prometheus") is None
    assert own_account(folder / "missing", MLFLOW) is None


def test_a_user_id_without_a_name_has_no_account(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert own_account(folder, MLFLOW) is None


def test_mlflows_client_gets_it_from_this_processs_environment(folder: Path) -> None:
    set_mlflow_account(folder / "missing")
    assert [name for name in NAMES if name in os.environ] == []
    set_mlflow_account(folder)
    assert [os.environ[name] for name in NAMES] == [ME, "s3cret"]


def test_an_account_that_a_person_set_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    set_mlflow_account(folder)
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


def test_the_header_is_that_of_rfc_7617() -> None:
    assert HttpAccount("Aladdin", "open sesame").header == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
