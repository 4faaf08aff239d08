"""The batch script of a run, or of an array: submitit's parameters, and the lines around srun."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.slurm.slurm import _make_sbatch_string

from hpc.jobs.rank.exit_codes import REQUEUE
from hpc.jobs.run.array import RunArray
from hpc.jobs.run.folder import Run
from hpc.jobs.slurm.container import rank_python, srun_options
from hpc.jobs.spec.config import ClusterConfig
from hpc.jobs.spec.sbatch_options import sbatch_options

JOB_ID = "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
"""The job in the shell: of an array this task alone, whose plain id may mean the whole array."""
ATTEMPT = "$((${SLURM_RESTART_COUNT:-0} + 1))"
"""The number of the attempt, in the batch shell."""


def executor(cluster: ClusterConfig, run: Run) -> SlurmExecutor:
    """submitit's executor for this run; raises RuntimeError where there is no srun."""
    made = SlurmExecutor(folder=run.submitit, python=shlex.join(rank_python(cluster)))
    made.update_parameters(**parameters(cluster, run))
    return made


def script(cluster: ClusterConfig, run: Run) -> str:
    """The text of the batch script that `executor` sends."""
    command = _rank_command(cluster, run.submitit)
    # Private: submitit has no public function for the text alone, which --dry-run shows.
    return _make_sbatch_string(command=command, folder=run.submitit, **parameters(cluster, run))


def array_executor(cluster: ClusterConfig, array: RunArray) -> SlurmExecutor:
    """submitit's executor for an array; raises RuntimeError where there is no srun."""
    made = SlurmExecutor(folder=array.folder, python=shlex.join(rank_python(cluster)))
    made.update_parameters(**array_parameters(cluster, array))
    return made


def array_script(cluster: ClusterConfig, array: RunArray) -> str:
    """The text of the batch script that `array_executor` sends."""
    command = _rank_command(cluster, array.folder)
    return _make_sbatch_string(
        command=command,
        folder=array.folder,
        map_count=len(array.runs),
        **array_parameters(cluster, array),
    )


def parameters(cluster: ClusterConfig, run: Run) -> dict[str, Any]:
    """submitit's parameters, one `#SBATCH` line each; null settings are left to the cluster.

    Raises ValueError for an option of sbatch that is Lockgate's own.
    """
    # submitit's own patterns are right for any folder without a %, which Slurm wants doubled. See
    # https://slurm.schedmd.com/sbatch.html#SECTION_FILENAME-PATTERN
    folder = str(run.submitit)
    logs = f"{folder.replace('%', '%%')}/%j" if "%" in folder else None
    return _parameters(cluster, run.name, run.folder, logs, beginning(cluster, run), ending(run))


def array_parameters(cluster: ClusterConfig, array: RunArray) -> dict[str, Any]:
    """submitit's parameters of an array, each task of which works in its own run's folder.

    Raises ValueError for an option of sbatch that is Lockgate's own.
    """
    logs = f"{str(array.folder).replace('%', '%%')}/%a/submitit/%A_%a"
    own_folder = Run(Path())  # where `setup` goes
    begin, end = beginning(cluster, own_folder), ending(own_folder)
    common = _parameters(cluster, array.name, array.folder, logs, begin, end)
    return {
        **common,
        "setup": ['cd "$SLURM_ARRAY_TASK_ID" || exit 1', *common["setup"]],
        "array_parallelism": cluster.sweep_parallel or len(array.runs),
    }


def _parameters(
    cluster: ClusterConfig,
    name: str,
    folder: Path,
    logs: str | None,
    setup: list[str],
    teardown: list[str],
) -> dict[str, Any]:
    """`logs` is the beginning of the logs' paths as a pattern of Slurm's; None for submitit's."""
    chosen = {
        "job_name": name,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.tasks_per_node,
        "cpus_per_task": cluster.cpus_per_task,
        "gpus_per_node": cluster.gpus_per_node or None,
        "mem": f"{round(cluster.mem_gb * 1024)}M" if cluster.mem_gb else None,
        "time": cluster.timeout_min,
        "signal_delay_s": cluster.signal_delay_s,
        "exclude": cluster.exclude,
        "srun_args": [
            # From Slurm 22.05 srun no longer takes --cpus-per-task from the batch script.
            f"--cpus-per-task={cluster.cpus_per_task}",
            # A rank that is gone leaves the others waiting in a collective.
            "--kill-on-bad-exit=1",
            *srun_options(cluster),
            *(f"--{stream}={path}" for stream, path in _log_patterns(logs, "%t").items()),
        ],
        "setup": setup,
        "teardown": teardown,
        "additional_parameters": {
            "chdir": str(folder),
            "requeue": True,
            **_log_patterns(logs, "0"),
            **sbatch_options(cluster.additional_parameters),
        },
    }
    return {name: value for name, value in chosen.items() if value is not None} | {"wckey": None}


def _log_patterns(logs: str | None, task: str) -> dict[str, str]:
    if logs is None:
        return {}
    return {"output": f"{logs}_{task}_log.out", "error": f"{logs}_{task}_log.err"}


def _rank_command(cluster: ClusterConfig, folder: Path) -> str:
    """The command of a rank as submitit puts it behind srun."""
    return shlex.join([*rank_python(cluster), "-u", "-m", "submitit.core._submit", str(folder)])


def beginning(cluster: ClusterConfig, run: Run) -> list[str]:
    """Lines before srun: the attempt's heading in the log, and the check of its container image."""
    lines = [f'echo "lockgate: attempt {ATTEMPT} starts" >&2']
    if cluster.container is not None:
        check = [sys.executable, "-m", "hpc.jobs.cause.container_check", str(run.folder)]
        lines.append(f'{shlex.join(check)} "{ATTEMPT}" || exit $?')
    return lines


def ending(run: Run) -> list[str]:
    """Lines after srun: end with the code of `hpc.jobs.cause.attempt_end`, and requeue a job that
    comes back. Where that program cannot run, the code that the ranks left counts.

    The batch shell requeues, not a rank: `scontrol requeue` kills the job. Where Slurm has
    requeued it already, scontrol's complaint goes to the log and nothing else happens; and a job
    that could not be requeued ends with a code, so that it does not look completed.
    """
    excluded = shlex.quote(str(run.excluded_nodes))
    code_file = f"{shlex.quote(str(run.logs))}/{ATTEMPT}.exit"
    program = shlex.join([sys.executable, "-m", "hpc.jobs.cause.attempt_end", str(run.folder)])
    return [
        "code=$?",
        f'if decided=$({program} "{ATTEMPT}" "$code"); then code=$decided; '
        f"elif [ -e {code_file} ]; then code=$(cat {code_file}); fi",
        f'if [ "$code" -eq {REQUEUE} ]; then',
        # scontrol requeue ends this shell with SIGTERM; what follows needs a moment, and takes it.
        "trap '' TERM",
        *_requeue(JOB_ID),
        # Nodes that failed their checks. Slurm takes the list only of a job that waits again.
        f"if [ -e {excluded} ]; then "
        f'scontrol update "JobId={JOB_ID}" "ExcNodeList=$(cat {excluded})"; fi',
        "fi",
        'exit "$code"',
    ]


UNREACHABLE = (
    "nable to contact",
    "onnection",
    "imed out",
    "failure",
    "were transmitted",
    "nexpected message",
)
"""Parts of scontrol's words where slurmctld was not reached; see slurm_errno.c."""


def _requeue(job_id: str) -> list[str]:
    """Lines that requeue a job. While slurmctld is down or restarts, a job that ended here would be
    lost: it waits, to its time limit at most. Any other complaint is final."""
    patterns = "|".join(f"*{shlex.quote(part)}*" for part in UNREACHABLE)
    return [
        f'until answer=$(scontrol requeue "{job_id}" 2>&1); do',
        'echo "$answer" >&2',
        f'case "$answer" in {patterns}) sleep 5 ;; *) break ;; esac',
        "done",
    ]
