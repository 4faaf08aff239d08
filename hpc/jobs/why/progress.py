"""Steps of a run that are safe and that are lost: its checkpoints against its last logged step."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpc.jobs.run.timeline import RESUMED

NEW = re.compile(r"^a new run$", re.MULTILINE)
NOT_USED = re.compile(r"^checkpoint (\d{1,15}) is not used: (.{1,300})$", re.MULTILINE)


@dataclass(frozen=True)
class PassedOver:
    """A checkpoint that does not verify."""

    step: int
    fault: str


@dataclass(frozen=True)
class Progress:
    """The progress of a run that is kept by its checkpoints."""

    last_step: int
    """The last one in metrics.jsonl."""
    checkpoint_step: int
    """Of the newest checkpoint that verifies, from which an attempt goes on; 0 for none."""
    passed_over: tuple[PassedOver, ...]

    @property
    def lost_steps(self) -> int:
        """Steps that have to be done again, as far as they were logged."""
        return max(self.last_step - self.checkpoint_step, 0)


@dataclass(frozen=True)
class AttemptStart:
    """The start of an attempt as rank 0's log has it."""

    step: int | None
    """Step after which it went on; 0 for a new run, None where the log has neither."""
    passed_over: tuple[PassedOver, ...]


def progress(checkpoints: Path, last_step: int, fault: Callable[[Path], str | None]) -> Progress:
    """The progress of a run with a folder of `checkpoints`; `fault` verifies one of them.

    The newest first, and none older than the first good one, as an attempt does.
    """
    passed_over: list[PassedOver] = []
    for folder in sorted(_folders(checkpoints), key=lambda one: -int(one.name)):
        found = fault(folder)
        if found is None:
            return Progress(last_step, int(folder.name), tuple(passed_over))
        passed_over.append(PassedOver(int(folder.name), found))
    return Progress(last_step, 0, tuple(passed_over))


def attempt_start(log: str) -> AttemptStart:
    """The start of an attempt in the beginning of rank 0's log."""
    resumed = RESUMED.search(log.encode(errors="replace"))
    step = int(resumed[1]) if resumed else 0 if NEW.search(log) else None
    passed_over = [PassedOver(int(number), fault) for number, fault in NOT_USED.findall(log)]
    return AttemptStart(step, tuple(passed_over))


def _folders(checkpoints: Path) -> list[Path]:
    try:
        return [one for one in checkpoints.iterdir() if one.name.isdecimal() and one.is_dir()]
    except OSError:  # there are none yet, or they are not this user's to read
        return []
