from __future__ import annotations

import pytest

from hpc.jobs.slurm.usage import parse_memory

RUN = "t-20260101-000001-aaaaaa"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (f"7||{RUN}\n7.batch|900K|batch\n7.0|1.5G|python\n7.0|2048M|python\n", 2 << 30),
        (f"7||{RUN}\n7.0|1048576|python\n", 1 << 20),
        (f"7||{RUN}\n7.0|0|python\n", None),
        (f"7||{RUN}\n7.0||python\n7.1|lots|python\n", None),
        ("7||another\n7.0|2G|python\n", None),  # the id was given out again
        (f"7||{RUN}\n71.0|2G|python\n", None),
        ("", None),
        ("|\n\n7", None),
    ],
)
def test_the_largest_memory_of_the_runs_own_job(text, size):
    assert parse_memory(text, "7", RUN) == size
