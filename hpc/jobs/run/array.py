"""A job array: the runs that one sbatch sends, each the task with its number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpc.jobs.run.folder import Run


@dataclass(frozen=True)
class RunArray:
    """Runs of one size. `folder` holds a link to each run's folder, called by its task's number."""

    folder: Path
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The name of the array's job."""
        return self.folder.name

    def link(self) -> None:
        """Make the folder, for its owner alone, with the links; submitit's pickles go there too."""
        self.folder.mkdir(mode=0o700, parents=True)
        for number, run in enumerate(self.runs):
            (self.folder / str(number)).symlink_to(run.folder)
