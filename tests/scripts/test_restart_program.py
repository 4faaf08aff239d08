"""A restart by supervisord that does not keep it busy: its calls never wait."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xmlrpc.client
from pathlib import Path

import pytest

from scripts.box import restart_program, supervisor

PROGRAM = Path(restart_program.__file__)


class States:
    """A supervisord whose program is in each of `states` in turn, and stays in the last."""

    def __init__(self, *states: str, stop: int = 0, start: int = 0) -> None:
        self.states, self.calls = list(states), []
        self.faults = {"stop": stop, "start": start}

    def getProcessInfo(self, name: str) -> dict[str, str]:
        return {"statename": self.states.pop(0) if len(self.states) > 1 else self.states[0]}

    def stopProcess(self, name: str, wait: bool) -> None:
        self._call("stop", wait)

    def startProcess(self, name: str, wait: bool) -> None:
        self._call("start", wait)

    def _call(self, what: str, wait: bool) -> None:
        self.calls.append((what, wait))
        if self.faults[what]:
            raise xmlrpc.client.Fault(self.faults[what], what)


@pytest.mark.parametrize(
    ("states", "ended"),
    [
        (("STOPPING", "STOPPED", "STARTING", "STARTING", "RUNNING"), "RUNNING"),
        (("STOPPED", "RUNNING"), "RUNNING"),
        (("FATAL", "STARTING", "BACKOFF"), "BACKOFF"),
        (("STOPPING", "STOPPING", "EXITED", "FATAL"), "FATAL"),
    ],
)
def test_no_call_waits(states, ended):
    fake = States(*states)
    assert restart_program.restart(fake, "triton", lambda seconds: None) == ended
    assert fake.calls == [("stop", False), ("start", False)]


def test_what_stands_still_or_was_started_meanwhile_is_no_fault():
    fake = States("EXITED", "RUNNING", stop=70, start=60)
    assert restart_program.restart(fake, "triton", lambda seconds: None) == "RUNNING"
    with pytest.raises(xmlrpc.client.Fault):
        restart_program.restart(States("STOPPED", stop=10), "none", lambda seconds: None)


def test_a_real_supervisord_restarts_it(tmp_path):
    for name in ("run", "log"):
        (tmp_path / name).mkdir()
    text = supervisor.host_conf(tmp_path, "root", "root", "sleep 600", {}, 5)
    (tmp_path / "conf").write_text(text.replace("chown=root:root\n", ""))
    daemon = subprocess.Popen(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(tmp_path / "conf")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        path = supervisor.host_socket(tmp_path)
        before = _running(path, 0)
        done = subprocess.run(
            [sys.executable, "-I", str(PROGRAM), str(path), "triton"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert _running(path, before) != before
        missing = subprocess.run(
            [sys.executable, "-I", str(PROGRAM), str(path), "other"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert missing.returncode == 1 and "BAD_NAME" in missing.stderr
    finally:
        daemon.terminate()
        daemon.wait(30)


def _running(path: Path, old: int) -> int:
    """The pid of the program once it runs with another pid than `old`."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = supervisor.processes(path).get("triton", {})
        if found.get("statename") == "RUNNING" and found["pid"] != old:
            os.kill(found["pid"], 0)
            return int(found["pid"])
        time.sleep(0.1)
    raise AssertionError("it does not run")
