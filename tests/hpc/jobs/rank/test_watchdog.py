"""The watch over a rank: what it takes for a hang, and what for a slow phase."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.jobs.rank.signals import StopRequest
from hpc.jobs.rank.watchdog import SLOW_PHASES, SLOWER, Pace

REPO = Path(__file__).parents[4]


def idle(pace: Pace, seconds: int) -> bool:
    """True where the rank hangs after so many seconds without getting on."""
    for _ in range(seconds):
        pace.wait(1.0, 1.0)
    return pace.hangs


def test_a_step_has_its_limit_and_a_slow_phase_more() -> None:
    pace = Pace(10.0)
    assert not idle(pace, SLOW_PHASES * 10)  # the start
    assert idle(pace, 1)
    pace.enter("step", now=60.0, before=0.0)
    assert not idle(pace, SLOW_PHASES * 10)  # the first step compiles
    pace.enter("step", now=110.0, before=60.0)
    assert not idle(pace, 10)
    assert idle(pace, 1)
    pace.enter("evaluation", now=121.0, before=110.0)
    assert not idle(pace, SLOW_PHASES * 10)


def test_long_steps_raise_the_limit() -> None:
    pace = Pace(10.0)
    for now in (0, 100, 108):  # from the start on, the first, and one of 8 s
        pace.enter("step", now=float(now), before=max(0.0, now - 8.0))
    assert pace.allowed_s == SLOWER * 8
    assert not idle(pace, SLOWER * 8)


def test_time_in_which_the_rank_was_suspended_does_not_count() -> None:
    pace = Pace(10.0)
    pace.enter("step", 0.0, 0.0)
    pace.enter("step", 1.0, 0.0)
    pace.wait(3600.0, 1.0)
    assert not pace.hangs


@pytest.fixture
def stop() -> StopRequest:
    return StopRequest()


def test_the_first_signal_has_its_time_and_sigterm_the_last_word(stop: StopRequest) -> None:
    stop.hear(signal.SIGCHLD)
    assert not stop()
    stop.hear(signal.SIGUSR2)
    heard = stop.heard_at
    assert (stop(), stop.requeue) == (True, True)
    stop.hear(signal.SIGTERM)
    assert (stop.requeue, stop.heard_at) == (False, heard)
    stop.hear(signal.SIGUSR2)
    assert not stop.requeue


# The main thread is in one call of a library that keeps no time for Python's signal handlers.
BUSY = """
import ctypes, os, signal, sys
from pathlib import Path
from hpc.jobs.rank.signals import StopRequest
from hpc.jobs.rank.watchdog import Watchdog

def end(kind, sentence):
    print(kind, sentence, flush=True)
    os._exit(7)

stop = StopRequest()
signals = stop.install()
limit = float(sys.argv[1]) or None
dog = Watchdog(stop, limit, float(sys.argv[2]), Path(sys.argv[3]), lambda step: None, end)
dog.start(signals)
if not limit:
    os.kill(os.getpid(), signal.SIGUSR2)
ctypes.CDLL(None).usleep.argtypes = [ctypes.c_uint]
while True:
    ctypes.CDLL(None).usleep(60_000_000)
"""


@pytest.mark.parametrize(
    ("limit", "within", "said"),
    [(0, 0.3, "late it was told to stop"), (0.1, 0.3, "hang start did not end for ")],
)
def test_a_rank_in_a_long_call_is_ended(tmp_path, limit, within, said) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUSY, str(limit), str(within), str(tmp_path / "1.hang")],
        env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert said in done.stdout
    assert ("most recent call first" in done.stderr) == bool(limit)
