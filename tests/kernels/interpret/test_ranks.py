"""Two processes over gloo: a split vocabulary, and a transformer sharded by ZeRO-3."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPO = HERE.parents[2]


TIED = pytest.param("zero3_tied", marks=pytest.mark.full)


@pytest.mark.parametrize("case", ["vocab_parallel", TIED, "zero3_untied"])
def test_two_ranks(case, tmp_path, elsewhere):
    environment = {
        **os.environ, "PYTHONPATH": str(REPO), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "PYTHONWARNINGS": "ignore",
    }  # fmt: skip
    ranks = [
        subprocess.Popen(
            [sys.executable, HERE / "ranks.py", case, str(rank), tmp_path / "store"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [rank.communicate(timeout=240)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for rank, text in zip(ranks, said, strict=True):
        assert rank.returncode == 0, text[-3000:]
        assert "linear_cross_entropy_kernel" in text or "cross_entropy_bwd_kernel" in text
