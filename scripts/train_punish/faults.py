"""Faults on the running site: each kind is injected by one function, and healed by one.

Ended are processes of the punished run's own job, found by the job's id in their environment, and
daemons of the box by their names in its supervisor. Filled is a file system that was made for it.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import xmlrpc.client
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from conf.site_schema import Site
from scripts.box import slurm, supervisor
from scripts.box.processes import STEP
from scripts.box.waiting import wait_until
from scripts.train_punish.failure import PunisherFailed

FILLER = ".filler"
DISK_MIB = 64
CHUNK = bytes(1 << 20)
PATIENCE_S = 30
SETTLED_S = 22.0
"""BatchStartTimeout and the shorter of MessageTimeout and 10 s, and a little more."""


@dataclass(frozen=True)
class PunishedJob:
    """The site and the job that are punished."""

    site: Site
    job_id: str
    checkpoints: Path
    """The run's folder of checkpoints, a file system of its own where the disk is to be filled."""


Inject = Callable[[PunishedJob, float], str | None]
"""Injects, by a number in [0, 1) that chooses. Returns what was hit, in the words that heal it;
None where nothing is there to be hit yet."""
Heal = Callable[[PunishedJob, str], None]


def kill_rank(target: PunishedJob, choice: float) -> str | None:
    """kill -9 of one rank; None while no rank runs."""
    ranks = sorted(
        (int(variables[b"SLURM_PROCID"]), process.pid, process)
        for process, variables in _job_processes(target)
        if b"SLURM_PROCID" in variables and _parent_name(process) == STEP
    )
    if not ranks:
        return None
    rank, pid, process = ranks[int(choice * len(ranks))]
    with suppress(psutil.NoSuchProcess):
        process.kill()
    return f"rank {rank}, pid {pid}"


def kill_node(target: PunishedJob, choice: float) -> str | None:
    """kill -9 of a node's slurmd and of all that runs there for the job; None while it waits."""
    found = _job_processes(target)
    nodes = sorted({variables[b"SLURMD_NODENAME"].decode() for _, variables in found
                    if b"SLURMD_NODENAME" in variables})  # fmt: skip
    nodes = [node for node in nodes if node in slurm.nodes(target.site)]
    if not nodes:
        return None
    node = nodes[int(choice * len(nodes))]
    _kill_daemon(target.site, f"slurmd-{node}")
    here = [process for process, variables in found
            if variables.get(b"SLURMD_NODENAME") == node.encode()]  # fmt: skip
    # The steps first: one that outlives its processes would report their end.
    steps = {parent.pid: parent for process in here if (parent := _step_of(process))}
    for process in [*steps.values(), *here]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return node


def start_node(target: PunishedJob, node: str) -> None:
    """Bring a node's slurmd back."""
    _start_daemon(target.site, f"slurmd-{node}")


def kill_slurmctld(target: PunishedJob, choice: float) -> str:
    """kill -9 of slurmctld."""
    _kill_daemon(target.site, "slurmctld")
    return "slurmctld"


def kill_mlflow(target: PunishedJob, choice: float) -> str:
    """kill -9 of the MLflow server."""
    _kill_daemon(target.site, "mlflow")
    return "mlflow"


def start_slurmctld(target: PunishedJob, name: str) -> None:
    """Bring slurmctld back, as a site's unit should: nodes register once more when it has settled.

    It saves its state some seconds after a change. Killed within them it has forgotten a requeue,
    takes the job for running, and overlooks for `SETTLED_S` that its batch script is gone; the next
    registration by itself is 20 pings later, which are half an hour.
    """
    _start_daemon(target.site, name)
    command = f"sleep {SETTLED_S:.0f}; exec scontrol reconfigure"
    environment = {**os.environ, **slurm.client_env(target.site)}
    subprocess.Popen(
        ["sh", "-c", command], env=environment, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def start_daemon(target: PunishedJob, name: str) -> None:
    """Bring back a daemon of the box by its name there."""
    _start_daemon(target.site, name)


def fill_disk(target: PunishedJob, choice: float) -> str | None:
    """Fill the file system of the run's checkpoints; None before the run has it."""
    if not target.checkpoints.is_mount():
        return None
    with (target.checkpoints / FILLER).open("wb", buffering=0) as file:
        try:
            while True:
                file.write(CHUNK)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return f"{DISK_MIB} MiB of checkpoints"


def empty_disk(target: PunishedJob, what: str) -> None:
    """Remove the filler."""
    (target.checkpoints / FILLER).unlink(missing_ok=True)


INJECT: Mapping[str, Inject] = {
    "rank": kill_rank,
    "node": kill_node,
    "slurmctld": kill_slurmctld,
    "mlflow": kill_mlflow,
    "disk": fill_disk,
}
HEAL: Mapping[str, Heal] = {
    "node": start_node,
    "slurmctld": start_slurmctld,
    "mlflow": start_daemon,
    "disk": empty_disk,
}
"""A killed rank is healed by nobody but the run."""


def mount_small_disk(folder: Path, owner: str) -> None:
    """Make `folder` a file system of `DISK_MIB` that `owner` writes. Raises `PunisherFailed`."""
    folder.mkdir(exist_ok=True)
    argv = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0755", "lockgate", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PunisherFailed(
            f"no file system can be mounted here ({done.stderr.strip()}): leave the kind disk out "
            "with --kinds"
        )
    shutil.chown(folder, owner, owner)


def keep_and_unmount(folder: Path) -> None:
    """Leave the content of the file system at `folder` in the folder below it."""
    if not folder.is_mount():
        return
    (folder / FILLER).unlink(missing_ok=True)
    kept = folder.with_name(f".{folder.name}-kept")
    shutil.rmtree(kept, ignore_errors=True)
    subprocess.run(["cp", "-a", str(folder), str(kept)], check=True)
    # Lazily, as a rank that dies slowly may have a file open there.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()
    kept.rename(folder)


def _job_processes(target: PunishedJob) -> list[tuple[psutil.Process, dict[bytes, bytes]]]:
    """The processes of the job, each with its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            content = Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            continue
        pairs = (item.partition(b"=") for item in content.split(b"\0") if item)
        variables = {name: value for name, _, value in pairs}
        if variables.get(b"SLURM_JOB_ID") == target.job_id.encode():
            found.append((process, variables))
    return [one for one in found if one[0].pid != os.getpid()]


def _step_of(process: psutil.Process) -> psutil.Process | None:
    """The slurmstepd above a process."""
    try:
        return next((one for one in process.parents() if one.name() == STEP), None)
    except psutil.Error:
        return None


def _parent_name(process: psutil.Process) -> str:
    try:
        parent = process.parent()
        return parent.name() if parent else ""
    except psutil.Error:
        return ""


def _kill_daemon(site: Site, name: str) -> None:
    """kill -9, and no start by the supervisor until it is healed."""
    path = supervisor.socket(site)
    pid = int(supervisor.processes(path).get(name, {}).get("pid", 0))
    # Told to stop it, the supervisor does not bring it back; killed, it has no time to stop well.
    with suppress(xmlrpc.client.Fault):
        supervisor.connect(path).stopProcess(name, False)
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _start_daemon(site: Site, name: str) -> None:
    """Start a daemon and wait until the supervisor has it running. Raises `PunisherFailed`."""
    path = supervisor.socket(site)

    def runs() -> bool:
        state = supervisor.processes(path).get(name, {}).get("statename")
        if state not in supervisor.RUNNING:
            with suppress(xmlrpc.client.Fault, OSError):  # it may still be stopping
                supervisor.connect(path).startProcess(name, False)
        return state == "RUNNING"

    if not wait_until(runs, PATIENCE_S):
        raise PunisherFailed(f"{name} does not start again: type scripts/site up")
