"""The ranks of a job: the device of each, and the values that they reduce and broadcast.

The process environment (RANK, WORLD_SIZE, ...) is set by `hpc.jobs.rank.entry` before that.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from hpc.train.job_network import bind_gloo, open_store

# A rank may wait this long in a collective: long enough for rank 0 to evaluate and export alone.
PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class World:
    """This rank among all, and its device."""

    rank: int
    size: int
    device: torch.device
    group: dist.ProcessGroup | None = None
    """The ranks' connections; None for the default group's."""

    @property
    def leads(self) -> bool:
        """Rank 0 writes what there is one of: metrics, manifests, the candidate."""
        return self.rank == 0

    def barrier(self) -> None:
        dist.barrier(group=self.group)

    def total(self, values: Sequence[float | torch.Tensor]) -> list[float]:
        """The sums of `values` over all ranks, the same bits on each.

        A value may be a tensor of one number on this rank's device: it is waited for once, here.
        """
        parts = [torch.as_tensor(one, dtype=torch.float64, device=self.device) for one in values]
        tensor = torch.stack(parts)
        dist.all_reduce(tensor, group=self.group)
        return tensor.tolist()

    def from_leader(self, value: int) -> int:
        """Rank 0's `value`, on every rank."""
        tensor = torch.tensor([value], dtype=torch.int64, device=self.device)
        dist.broadcast(tensor, src=0, group=self.group)
        return int(tensor.item())

    def second_group(self) -> World:
        """The same ranks over connections of their own, for a thread; a collective call.

        On the CPU, by gloo, so that the thread's messages stand in no queue of the GPU.
        """
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
        return replace(self, device=torch.device("cpu"), group=group)


@contextmanager
def join() -> Iterator[World]:
    """Join the job's process group, and leave it at the end.

    NCCL and the GPU LOCAL_RANK where there is one, gloo and the CPU otherwise.
    """
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"  # read when DeepSpeed is first imported
        keep_freed_memory()
    import deepspeed

    # An all-reduce for inference on one node; it would be compiled from C++ at the first start.
    # DeepSpeed has no public switch for one of its operators, so its private table is edited.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    backend = "nccl" if on_gpu else "gloo"
    bind_gloo()
    dist.init_process_group(
        backend,
        store=open_store(PATIENCE),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=PATIENCE,
    )
    # It takes over the group that is there; its own would listen on every address.
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def computes_in_bf16(device: torch.device) -> bool:
    """True where bf16 is faster than fp32, not merely emulated."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16"}) or (
        platform.machine() == "aarch64" and "bf16" in words
    )


def keep_freed_memory() -> None:
    """Make glibc keep freed memory: a training step allocates the same large blocks again.

    By default each of them is mapped and unmapped, and every page is faulted in anew: a fifth of a
    step of a small model. Another C library is left as it is.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)
