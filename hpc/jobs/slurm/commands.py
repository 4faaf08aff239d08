"""Slurm's commands: one place that runs them, with a time limit and a clean environment."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpc.jobs.errors import SchedulerUnavailable, error_line

TIMEOUT_S = 20.0
REMEDY = "Bring the site up (scripts/site up), or run without Slurm: cluster=local."


def query(
    command: Sequence[str], variables: Mapping[str, str], timeout_s: float = TIMEOUT_S
) -> str:
    """Run a Slurm command and return its standard output.

    `variables` are added to the environment (SLURM_CONF above all). Raises `SchedulerUnavailable`
    with the command's own error line when it is missing, fails, or does not answer in time.
    """
    return _outputs(command, variables, timeout_s)[0]


def sbatch_test(script: str, variables: Mapping[str, str]) -> str:
    """The words of `sbatch --test-only` on a batch script, which it prints as an error.

    Nothing is submitted. Raises `SchedulerUnavailable` as `query` does, also for a refusal.
    """
    return _outputs(["sbatch", "--test-only"], variables, TIMEOUT_S, script)[1]


def _outputs(
    command: Sequence[str], variables: Mapping[str, str], timeout_s: float, script: str = ""
) -> tuple[str, str]:
    """Standard output and error of a Slurm command that has `script` as its standard input."""
    program = command[0]
    _require_config(variables)  # without it Slurm's commands look for a cluster in DNS, slowly
    if shutil.which(program) is None:
        raise SchedulerUnavailable(f"{program} is not on this machine. {REMEDY}")
    try:
        done = subprocess.run(
            list(command), capture_output=True, timeout=timeout_s,
            env={**_clean(os.environ), **variables}, check=False, input=script.encode(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SchedulerUnavailable(
            f"{program} did not answer within {timeout_s:.0f} s. {REMEDY}"
        ) from error
    # Not `text=True`: it takes the \r in a job's name for the end of a line.
    output, errors = (data.decode(errors="replace") for data in (done.stdout, done.stderr))
    if done.returncode != 0:
        raise SchedulerUnavailable(f"{program}: {error_line(errors or output)}")
    return output, errors


def require_controller(variables: Mapping[str, str]) -> None:
    """Raise `SchedulerUnavailable` unless Slurm is installed here and its controller is up."""
    _require_config(variables)
    if shutil.which("sbatch") is None:
        raise SchedulerUnavailable(f"sbatch is not on this machine. {REMEDY}")
    if not controller_is_up(variables):
        raise SchedulerUnavailable(f"the Slurm controller does not answer. {REMEDY}")


def controller_is_up(variables: Mapping[str, str]) -> bool:
    """True when a controller answers a ping; false at once, where squeue would wait for 10 s."""
    try:
        return " is UP" in query(["scontrol", "ping"], variables)
    except SchedulerUnavailable:
        return False


def _require_config(variables: Mapping[str, str]) -> None:
    config = variables.get("SLURM_CONF")
    if not config:
        return
    if not Path(config).is_file():
        raise SchedulerUnavailable(f"there is no Slurm cluster: {config} does not exist. {REMEDY}")
    if config != os.environ.get("SLURM_CONF"):
        _require_trust(Path(config))


def _require_trust(config: Path) -> None:
    """Raise `SchedulerUnavailable` where somebody else could write or swap `config`.

    Slurm's commands load the plug-ins that it names, into the process of whoever asks; and the
    path may come from another user's run.
    """
    path = config.resolve()
    for one in (path, *path.parents):
        status = one.stat()
        # In a sticky folder, such as /tmp, nobody takes away what another owns.
        shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, os.geteuid()) or shared:
            raise SchedulerUnavailable(
                f"{config} is not used: {one} can be changed by others than root and you, and "
                "Slurm's commands would load what they put there. If you trust it: export "
                f"SLURM_CONF={config}"
            )


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Without a surrounding job's variables, and without settings that change the output."""
    formats = ("SQUEUE_", "SINFO_", "SACCT_", "SBATCH_", "SCANCEL_", "SLURM_TIME_FORMAT")
    return {
        name: value
        for name, value in environment.items()
        if name == "SLURM_CONF" or not name.startswith(("SLURM_", *formats))
    }
