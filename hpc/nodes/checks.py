"""Checks of one node before training: devices, folders, clock and the speed of a small product.

Each returns a `NodeCheck`; none raises for what it finds, and each takes a second at most.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.artifact.durable import sync_path

SCRATCH_FREE_BYTES = 1 << 30
"""Triton's compile cache and a checkpoint of a small model."""
SHM_FREE_BYTES = 32 << 20
"""Room for batches that a loader's processes pass through /dev/shm; a container is given 64 MB."""
CLOCK_LIMIT_S = 5.0
"""Difference to the clock of the shared storage from which time stamps of ranks mislead."""
TOGETHER = "all-reduce"
"""The check of all nodes together: its failure is of none of them alone."""
WRITTEN_BYTES = 4 << 20
PRODUCT_SIDE = 512
PRODUCTS = 5


@dataclass(frozen=True)
class NodeCheck:
    """One thing looked at on a node."""

    name: str
    found: str
    """The value in words, with its unit."""
    fault: str = ""
    """The fault in words; empty for none."""


def check_devices(asked: int, environment: Mapping[str, str]) -> NodeCheck:
    """GPUs that the job sees on this node, against the number that it asked for."""
    if not asked:
        return NodeCheck("devices", "none asked")
    visible = [gpu for gpu in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    found = f"{len(visible)} of {asked}"
    if len(visible) < asked:
        return NodeCheck("devices", found, f"{len(visible)} GPUs are visible, {asked} were asked")
    import torch

    # A torch without CUDA trains on the CPU whatever Slurm hands out, as in the site in a box.
    if torch.version.cuda and (usable := torch.cuda.device_count()) < len(visible):
        fault = f"CUDA finds {usable} of {len(visible)} visible GPUs"
        return NodeCheck("devices", found, fault)
    return NodeCheck("devices", found)


def check_folder(name: str, folder: Path, free_bytes: int) -> NodeCheck:
    """A folder of the node that can be written, with at least `free_bytes` left."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0" * 4096)
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return NodeCheck(name, str(folder), f"{folder} cannot be written: {error.strerror}")
    found = f"{_size(free)} free"
    if free < free_bytes:
        return NodeCheck(
            name, found, f"{folder} has {_size(free)} left, less than {_size(free_bytes)}"
        )
    return NodeCheck(name, found)


def check_shared_storage(folder: Path) -> tuple[NodeCheck, NodeCheck]:
    """Write speed of the storage of the run's `folder`, and the node's clock against it."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".preflight-") as file:
            began = time.monotonic()
            file.write(os.urandom(WRITTEN_BYTES))
            file.flush()
            sync_path(Path(file.name))
            seconds = time.monotonic() - began
            skew_s = time.time() - os.fstat(file.fileno()).st_mtime - seconds
    except OSError as error:
        fault = f"the run's folder {folder} cannot be written: {error.strerror}"
        return NodeCheck("shared storage", str(folder), fault), NodeCheck("clock", "not compared")
    speed = NodeCheck("shared storage", f"{WRITTEN_BYTES / 1e6 / max(seconds, 1e-6):.0f} MB/s")
    return speed, check_clock(skew_s)


def check_clock(skew_s: float) -> NodeCheck:
    """The node's clock, `skew_s` ahead of the shared storage's."""
    found = f"{skew_s:+.1f} s"
    if abs(skew_s) > CLOCK_LIMIT_S:
        return NodeCheck("clock", found, f"the clock is {skew_s:+.1f} s off the shared storage's")
    return NodeCheck("clock", found)


def check_product(local_rank: int) -> tuple[NodeCheck, float]:
    """The best of a few matrix products on this rank's device, in words and in GFLOP/s."""
    import torch

    on_gpu = torch.cuda.is_available()
    # One GPU that is visible is device 0 whatever the rank.
    device = torch.device("cuda", local_rank % torch.cuda.device_count()) if on_gpu else "cpu"
    side = 8 * PRODUCT_SIDE if on_gpu else PRODUCT_SIDE
    kind = torch.bfloat16 if on_gpu else torch.float32
    try:
        left = torch.ones(side, side, device=device, dtype=kind)
        seconds = min(_timed(lambda: float((left @ left)[0, 0])) for _ in range(PRODUCTS))
        entry = float((left @ left)[side - 1, side - 1])
    except RuntimeError as error:
        fault = f"a product of matrices failed: {str(error).splitlines()[0]}"
        return NodeCheck("product", "failed", fault), 0.0
    speed = 2 * side**3 / seconds / 1e9
    wrong = "" if entry == side else f"a product of ones of side {side} has the entry {entry:g}"
    return NodeCheck("product", f"{speed:.0f} GFLOP/s", wrong), speed


def _timed(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return max(time.monotonic() - began, 1e-9)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
