"""The time for which a checkpoint holds up the steps: a measurement for `scripts/bench`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from hpc.jobs.run.elastic import Layout
from hpc.train.checkpoint import Checkpoints
from hpc.train.distributed import World
from hpc.train.retention import Retention
from hpc.train.saving import saving


def save_stalls(
    engine: Any, world: World, layout: Layout, folder: Path, asynchronous: bool, saves: int
) -> list[float]:
    """Seconds for which each of `saves` saves into `folder` holds up a step; a collective call.

    Each one is durable before the next begins, so that none waits for another. The first takes
    longer than the others: its memory is new.
    """
    stalls = []
    with saving(Checkpoints(folder, Retention(1), ""), world, 0, asynchronous) as writer:
        for step in range(1, saves + 1):
            world.barrier()
            began = time.perf_counter()
            writer.save(engine, step, layout)
            stalls.append(time.perf_counter() - began)
            writer.finish()
    return stalls
