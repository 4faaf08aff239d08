"""The batch script of a run: submitit's parameters, and the lines around its srun."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from submitit import SlurmExecutor
from submitit.slurm.slurm import _make_sbatch_string

from hpc.jobs.rank.exit_codes import REQUEUE
from hpc.jobs.run.folder import Run
from hpc.jobs.spec.config import ClusterConfig
from hpc.jobs.spec.sbatch_options import sbatch_options

ATTEMPT = "$((${SLURM_RESTART_COUNT:-0} + 1))"
"""The number of the attempt, in the batch shell."""


def executor(cluster: ClusterConfig, run: Run) -> SlurmExecutor:
    """submitit's executor for this run; raises RuntimeError where there is no srun."""
    made = SlurmExecutor(folder=run.submitit)
    made.update_parameters(**parameters(cluster, run))
    return made


def script(cluster: ClusterConfig, run: Run) -> str:
    """The text of the batch script that `executor` sends."""
    command = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(run.submitit)])
    # Private: submitit has no public function for the text alone, which --dry-run shows.
    return _make_sbatch_string(command=command, folder=run.submitit, **parameters(cluster, run))


def parameters(cluster: ClusterConfig, run: Run) -> dict[str, Any]:
    """submitit's parameters, one `#SBATCH` line each; null settings are left to the cluster.

    Raises ValueError for an option of sbatch that is Lockgate's own.
    """
    chosen = {
        "job_name": run.name,
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
            *(f"--{stream}={path}" for stream, path in _log_patterns(run, "%t").items()),
        ],
        "setup": [f'echo "lockgate: attempt {ATTEMPT} starts" >&2'],
        "teardown": ending(run),
        "additional_parameters": {
            "chdir": str(run.folder),
            "requeue": True,
            **_log_patterns(run, "0"),
            **sbatch_options(cluster.additional_parameters),
        },
    }
    return {name: value for name, value in chosen.items() if value is not None} | {"wckey": None}


def _log_patterns(run: Run, task: str) -> dict[str, str]:
    """Paths of submitit's logs where the folder has a %, which Slurm wants doubled in a pattern.

    Empty for any other folder: submitit's own patterns are right. See
    https://slurm.schedmd.com/sbatch.html#SECTION_FILENAME-PATTERN
    """
    folder = str(run.submitit)
    if "%" not in folder:
        return {}
    stem = f"{folder.replace('%', '%%')}/%j_{task}_log"
    return {"output": f"{stem}.out", "error": f"{stem}.err"}


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
        'scontrol requeue "$SLURM_JOB_ID"',
        # Nodes that failed their checks. Slurm takes the list only of a job that waits again.
        f"if [ -e {excluded} ]; then "
        f'scontrol update "JobId=$SLURM_JOB_ID" "ExcNodeList=$(cat {excluded})"; fi',
        "fi",
        'exit "$code"',
    ]
