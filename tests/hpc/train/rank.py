"""One rank of a training job, run as a program: as `hpc.jobs.rank.entry`, without a scheduler.

    RANK=0 WORLD_SIZE=2 ... python rank.py RUN_DIR [stop|kill STEP [PHASE]]

The export of the language model has tests of its own; here it leaves a note instead.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from conf.errors import LockgateError
from hpc.jobs.run.log_output import configure_logging
from hpc.jobs.spec.job_spec import read_spec
from hpc.tasks.text import TextTask
from hpc.train.loop import train


def note_export(
    self: TextTask, model: nn.Module, dataset: Path, lineage: object, out_dir: Path
) -> Path:
    out_dir.mkdir(exist_ok=True)
    names = sorted(name for name, _ in model.named_parameters())
    (out_dir / "exported.txt").write_text("\n".join(names))
    return out_dir


class Trigger:
    """The stop request and the watch of a rank; acts in a phase of the attempt's `step`-th step."""

    def __init__(self, action: str, step: int, where: str) -> None:
        self.action, self.at, self.where = action, step, where
        self.step, self.phase, self.acted = 1, "start", False

    def resumed(self, step: int) -> None:
        self.phase = "step"

    def enter(self, phase: str) -> None:
        self.step += phase == "step"
        self.phase = phase

    def __call__(self) -> bool:
        self.acted |= self.step >= self.at and self.phase == self.where
        if self.acted and self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return self.acted and self.action == "stop"


if __name__ == "__main__":
    torch.set_num_threads(1)
    configure_logging()
    TextTask.export = note_export
    run_dir = Path(sys.argv[1])
    action, step, where = (*sys.argv[2:], *("run", "0", "step")[len(sys.argv) - 2 :])
    trigger = Trigger(action, int(step), where)
    try:
        print("outcome:", train(read_spec(run_dir / "spec.yaml"), run_dir, trigger, trigger))
        code = 0
    except LockgateError as error:
        print(f"lockgate: {error}")
        code = 3
    sys.stdout.flush()
    os._exit(code)
