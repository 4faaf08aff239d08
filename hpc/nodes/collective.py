"""The job's network before training: one all-reduce over all ranks, timed, and the slowest node.

The group is one of its own, on a port of its own, and is gone when training makes its group.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from hpc.jobs.rank.rendezvous import PORTS
from hpc.nodes.checks import TOGETHER, NodeCheck
from hpc.train.job_network import bind_gloo, open_store

REDUCED_BYTES = 4 << 20
ROUNDS = 3
SLOWEST_SHARE = 0.1
"""Part of the fastest rank's speed below which a rank would hold up all others."""


def check_collective(speed: float, timeout_s: float) -> tuple[NodeCheck, NodeCheck]:
    """The bandwidth of an all-reduce over all ranks, and this rank's `speed` among theirs.

    Called on every rank. Raises torch's DistError where a rank does not come within `timeout_s`.
    """
    with _group(timedelta(seconds=timeout_s)) as device:
        tensor = torch.ones(REDUCED_BYTES // 4, device=device)
        seconds = []
        for _ in range(ROUNDS):
            dist.barrier()
            began = time.monotonic()
            dist.all_reduce(tensor)
            float(tensor[0])
            seconds.append(max(time.monotonic() - began, 1e-9))
        size = dist.get_world_size()
        right = float(tensor[-1]) == float(size) ** ROUNDS
        speeds = torch.zeros(size, dtype=torch.float64, device=device)
        speeds[dist.get_rank()] = speed
        dist.all_reduce(speeds)
    # Each byte crosses a link twice, (n - 1) / n of the time: the bus bandwidth of nccl-tests.
    bandwidth = 2 * (size - 1) / size * REDUCED_BYTES / min(seconds) / 1e6
    fault = "" if right else "an all-reduce of ones gave a wrong sum"
    found = f"{bandwidth:.0f} MB/s" if size > 1 else "one rank"
    return NodeCheck(TOGETHER, found, fault), compare_speeds(speed, speeds.tolist())


def compare_speeds(own: float, of_all: list[float]) -> NodeCheck:
    """This rank's speed in a matrix product among all ranks', in GFLOP/s."""
    fastest = max(of_all)
    share = own / fastest if fastest > 0 else 1.0
    found = f"{share:.0%} of the fastest"
    fault = f"it computes at {share:.0%} of the fastest rank's speed ({fastest:.0f} GFLOP/s)"
    return NodeCheck("speed", found, fault if share < SLOWEST_SHARE else "")


def other_port(port: int) -> int:
    """The port of the checks' group of a job whose ranks train on `port`: far from its neighbours',
    who have the next ones."""
    return PORTS[(port - PORTS.start + len(PORTS) // 2) % len(PORTS)]


@contextmanager
def _group(timeout: timedelta) -> Iterator[torch.device]:
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    bind_gloo()
    with _variables({"MASTER_PORT": str(other_port(int(os.environ["MASTER_PORT"])))}):
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=open_store(timeout), rank=rank, world_size=size, timeout=timeout,
        )  # fmt: skip
    try:
        yield device
        dist.barrier()  # rank 0 serves the store until the last has read from it
    finally:
        dist.destroy_process_group()


@contextmanager
def _variables(changed: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ[name] for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        os.environ.update(before)
