"""A sweep on this machine: its trials take turns, and one that waits can be cancelled."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from pathlib import Path

from hpc.jobs.local.turn import wait_for_turn
from hpc.jobs.queue import run_states
from hpc.jobs.run.folder import all_runs

LINE = ("train", "-m", "task=standin", "cluster=local", "cluster.tasks_per_node=1", "--json")


def states(checkout) -> dict[str, str]:
    return {state.run: state.state for state in run_states(all_runs(checkout.runs))}


def test_trials_take_turns_and_the_line_typed_again_sends_nothing(checkout):
    words = (*LINE, "task.behaviour=wait", "seed=1,2,3", "sweep=turns")
    sent = checkout.lockgate(*words)
    assert sent.returncode == 0, sent.stderr
    names = [one["run"] for one in json.loads(sent.stdout)]
    deadline = time.monotonic() + 60
    while sorted(states(checkout).values()) != ["queued", "queued", "running"]:
        assert time.monotonic() < deadline, states(checkout)
    found = states(checkout)
    waiting = [name for name in names if found[name] == "queued"]
    cancelled = checkout.lockgate("cancel", waiting[0])
    assert cancelled.returncode == 0, cancelled.stderr
    assert states(checkout)[waiting[0]] == "cancelled"
    again = checkout.lockgate(*words)
    outcomes = {one["run"]: one["outcome"] for one in json.loads(again.stdout)}
    assert outcomes == {name: "ended" if name == waiting[0] else "already in" for name in names}
    (running,) = (name for name in names if found[name] == "running")
    assert checkout.lockgate("cancel", running).returncode == 0
    while states(checkout)[waiting[1]] != "running":  # its turn comes
        assert time.monotonic() < deadline, states(checkout)


def test_as_many_as_are_allowed_and_no_more(tmp_path: Path):
    held = []
    for number in range(2):
        handle = os.open(tmp_path / f"{number}.lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(handle, fcntl.LOCK_EX)
        held.append(handle)
    asked: list[int] = []

    def ended() -> bool:
        asked.append(1)
        return len(asked) > 2

    assert not wait_for_turn(tmp_path, 2, ended)
    asked.clear()
    threading.Timer(0.1, os.close, [held[1]]).start()
    assert wait_for_turn(tmp_path, 2, lambda: False)
    assert not wait_for_turn(tmp_path, 2, ended)  # this process keeps it
