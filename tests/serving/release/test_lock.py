"""The release lock: one at a time, its holder named, gone with its holder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serving.release.lock import ReleaseLocked, release_lock

from . import tiny

HOLD = """
import sys
from pathlib import Path
from serving.release.lock import release_lock
with release_lock(Path(sys.argv[1]), "flights", "their-run"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tiny.REPO)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_holder_is_named(other: subprocess.Popen, tmp_path: Path) -> None:
    with (
        pytest.raises(ReleaseLocked, match=rf"pid {other.pid}, run their-run"),
        release_lock(tmp_path, "flights", "mine"),
    ):
        pass


def test_another_model_is_not_held_up(other: subprocess.Popen, tmp_path: Path) -> None:
    with release_lock(tmp_path, "lm", "mine"):
        pass


def test_a_killed_holder_holds_nothing(other: subprocess.Popen, tmp_path: Path) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    with release_lock(tmp_path, "flights", "mine"):
        pass
