"""`python -m scripts.train_bench.one_process RUN ROUNDS [LOOP ...]`: our loop, others beside it.

Our `train` runs as in a job of one rank, ROUNDS steps and some to warm up. Its stop callback,
called once in each step, runs one step of each LOOP, a name of `loops.LOOPS`; so the loops take
turns within a process and whatever else the machine does meets all of them. Prints JSON: seconds of
wall time and of CPU time of each loop's steps.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

WARM = 5
"""Rounds at the beginning that do not count: allocations, first collectives, imports."""


class Turns:
    """The stop callback of our run: the turns of the others, and the clock of all."""

    def __init__(self, loops: dict[str, Iterator[None]], rounds: int) -> None:
        self.loops, self.left = loops, rounds + WARM
        self.missing: dict[str, str] = {}
        self.wall: dict[str, list[float]] = {"Lockgate": [], **{name: [] for name in loops}}
        self.cpu: dict[str, list[float]] = {name: [] for name in self.wall}
        self._since: tuple[float, float] | None = None

    def __call__(self) -> bool:
        if self._since is not None:
            self._note("Lockgate", self._since)
        for name, loop in list(self.loops.items()):
            began = _now()
            try:
                next(loop)
            except ImportError as error:
                self.missing[name] = str(error)
                for one in (self.loops, self.wall, self.cpu):
                    del one[name]
                continue
            self._note(name, began)
        self.left -= 1
        self._since = _now()
        return self.left <= 0

    def _note(self, name: str, began: tuple[float, float]) -> None:
        wall, cpu = _now()
        self.wall[name].append(wall - began[0])
        self.cpu[name].append(cpu - began[1])

    def figures(self) -> dict[str, object]:
        """Wall and CPU seconds by loop, of rounds in which all of them took a step."""
        kept = {
            kind: {name: seconds[WARM:] for name, seconds in table.items()}
            for kind, table in (("wall", self.wall), ("cpu", self.cpu))
        }
        return {**kept, "missing": self.missing}


def main() -> int:
    """Run the loops in turns; see the module."""
    folder, rounds, others = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    answer = os.dup(1)
    os.dup2(2, 1)  # what the loops print is not our output
    from hpc.jobs.spec.config import train_config
    from hpc.jobs.spec.job_spec import read_spec
    from hpc.train.loop import train
    from scripts.train_bench.loops import LOOPS

    spec = read_spec(folder / "spec.yaml")
    config, dataset = train_config(spec.config), spec.dataset.folder
    turns = Turns({name: LOOPS[name](config, dataset) for name in others}, rounds)
    train(spec, folder, turns)
    os.write(answer, json.dumps(turns.figures()).encode())
    os._exit(0)  # a loop in a thread still waits for its turn


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


if __name__ == "__main__":
    sys.exit(main())
