"""Users without a name: a number stands for them, and nothing of Lockgate fails for the lack."""

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from conf.user import user_name

ROOT = Path(__file__).resolve().parents[2]
NAMELESS = 1_234_567_890


def test_a_user_is_called_by_name_and_one_without_by_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert user_name() == pwd.getpwuid(os.getuid()).pw_name
    assert user_name(0) == "root"
    assert user_name(NAMELESS) == str(NAMELESS)
    monkeypatch.setattr("os.getuid", lambda: NAMELESS)
    assert user_name() == str(NAMELESS)


def test_nothing_else_looks_a_users_name_up() -> None:
    words = ["-e", "getpwuid", "-e", r"getpass\.getuser", "-e", r"\.owner()"]
    found = subprocess.run(
        ["git", "grep", "--name-only", *words, "--", "*.py", ":!tests"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stdout.split() == ["conf/user.py"]
