"""Rank, world size and rendezvous address of this process, from submitit's environment."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from submitit import JobEnvironment

from hpc.jobs.errors import JobError

# Below the ports that the kernel hands out (32768 and up), so that no connection has taken it.
PORTS = range(20000, 32000)
LOCAL_ATTEMPT = "LOCKGATE_ATTEMPT"
"""Variable with the number of the attempt, from the local launcher; Slurm has its own."""


@dataclass(frozen=True)
class Rank:
    """One process of a job. `attempt` counts from 1 and is the same on every rank."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    master_addr: str
    master_port: int
    job_id: str
    attempt: int
    local: bool  # started by the local executor, not by Slurm
    listen_addr: str = ""  # where rank 0 listens, if that is not what master_addr resolves to

    def variables(self, ambient: Mapping[str, str] = os.environ) -> dict[str, str]:
        """torch.distributed's variables; DeepSpeed imports mpi4py unless all of them are set."""
        visible = [gpu for gpu in ambient.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        # Slurm may show each rank only its own GPU; that one is device 0 whatever the local rank.
        device = 0 if len(visible) == 1 else self.local_rank
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(device),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "MASTER_ADDR": self.master_addr,
            "MASTER_PORT": str(self.master_port),
            **({"LOCKGATE_LISTEN_ADDR": self.listen_addr} if self.listen_addr else {}),
        }


def this_rank() -> Rank:
    """This process's rank, from submitit's environment.

    Raises `JobError` when rank 0's node has no address, and RuntimeError outside of a job.
    """
    job = JobEnvironment()
    local = job.name() == "local"
    return Rank(
        rank=job.global_rank,
        world_size=job.num_tasks,
        local_rank=job.local_rank,
        local_world_size=job.num_tasks // job.num_nodes,
        master_addr="127.0.0.1" if local else master_address(job.hostnames),
        master_port=master_port(job.job_id),
        job_id=job.job_id,
        attempt=int(os.environ[LOCAL_ATTEMPT]) if local else _slurm_attempt(),
        local=local,
        listen_addr="" if local or job.global_rank else listening_address(job.hostnames),
    )


def master_port(job_id: str) -> int:
    """A port that is the same on every rank, and another one for the next job."""
    number = int(re.sub(r"\D", "", job_id) or 0)
    return PORTS[number % len(PORTS)]


def master_address(hostnames: Sequence[str]) -> str:
    """Address of rank 0: the first node's name, or its NodeAddr where the name does not resolve.

    Nodes that share a machine have names of Slurm's alone. Raises `JobError` without either.
    """
    name = hostnames[0]
    try:
        socket.getaddrinfo(name, None)
        return name
    except OSError:
        return _node_address(name)


def listening_address(hostnames: Sequence[str]) -> str:
    """The address of rank 0's node, this one, at which the job's other nodes reach it.

    Many machines call their own name 127.0.1.1, which is of no use to others; the address that
    leads to the second node then stands for it. Raises `JobError` as `master_address` does.
    """
    own = _resolved(master_address(hostnames))
    if len(hostnames) == 1 or not ip_address(own).is_loopback:
        return own
    peer = _resolved(master_address(hostnames[1:]))
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, PORTS.start))  # of a datagram: finds the way, and sends nothing
        return str(probe.getsockname()[0])


def node_address(shown: str) -> str | None:
    """The NodeAddr in the output of `scontrol show node`; None without one."""
    match = re.search(r"\bNodeAddr=(\S+)", shown)
    return match.group(1) if match else None


def _resolved(name: str) -> str:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise JobError(f"the address {name} of a node of this job: {error}") from error
    return str(min(found, key=lambda one: one[0] != socket.AF_INET)[4][0])


def _node_address(name: str) -> str:
    try:
        shown = subprocess.run(
            ["scontrol", "show", "node", name], capture_output=True, text=True, timeout=60
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        shown = str(error)
    address = node_address(shown)
    if address is None:
        raise JobError(
            f"node {name} does not resolve and scontrol has no address for it: the ranks "
            "cannot find each other. Put the node into DNS or /etc/hosts."
        )
    return address


def _slurm_attempt() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) + 1
