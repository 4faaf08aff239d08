"""How a rank's process ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.jobs.run.folder import Run

REPO = Path(__file__).parents[4]

# A thread that never returns stands for one of gloo's, in a collective with a rank that is gone.
RANK = """
import sys, threading
from pathlib import Path
from hpc.jobs.rank import entry
from hpc.jobs.rank.rendezvous import Rank
from hpc.jobs.run.folder import Run

def attempt(here, rank, digest):
    threading.Thread(target=threading.Event().wait).start()
    print("the last words", end="")
    return int(sys.argv[2])

entry.this_rank = lambda: Rank(0, 2, 0, 2, "127.0.0.1", 20005, "5", 1, local=True)
entry._attempt = attempt
entry.run(str(Run(Path(sys.argv[1])).spec_path), "")
"""


@pytest.mark.parametrize("code", [0, 1, 75])
def test_a_rank_ends_with_its_code_although_a_thread_is_stuck(tmp_path, code):
    run = Run(tmp_path)
    run.logs.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", RANK, str(tmp_path), str(code)],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        timeout=60,
    )
    assert ended.returncode == code
    assert (run.logs / "1-0.log").read_text() == "the last words"
    assert run.exit_code(1).exists() == bool(code)
    if code:
        assert run.exit_code(1).read_text() == f"{code}\n"
