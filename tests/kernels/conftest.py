"""The interpreter and the compiler need a process each: TRITON_INTERPRET is read when Triton is
imported. `-m kernels_interpret` or `-m kernels_compile`, with `and not full` after it for the short
run, opens one of them; any other run collects neither, and the reference tests only."""

import os
import shutil
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LANES = {"kernels_interpret": HERE / "interpret", "kernels_compile": HERE / "compile"}


def lane_of(config):
    """The lane that the mark expression begins with, or None."""
    marks = config.option.markexpr.split(" and ")
    lane = marks[0].strip("()")
    return lane if lane in LANES else None


def pytest_configure(config):
    lane = lane_of(config)
    if lane is not None:
        os.environ["TRITON_INTERPRET"] = "1" if lane == "kernels_interpret" else "0"
        cache = tempfile.mkdtemp(prefix=f"{lane}-")
        os.environ["TRITON_CACHE_DIR"] = cache
        config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))


def pytest_ignore_collect(collection_path, config):
    for lane, folder in LANES.items():
        if collection_path == folder:
            return lane_of(config) != lane
    return None
