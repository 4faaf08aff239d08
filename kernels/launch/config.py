"""Launch configs: a frozen table, looked up, never searched for at run time.

`python -m kernels.analysis.tune` writes the table (kernels/launch/table.py) from the compiler's
account of each candidate; the reason for every choice stands beside it. Keys are (kernel,
architecture, dtype, size); "bf16" stands for all 16-bit types and "fp32" for the wider ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from kernels.backend import KernelError, interpreting

NVIDIA = ("sm_80", "sm_90", "sm_100")
ARCHES = (*NVIDIA, "gfx942")


@dataclass(frozen=True)
class LaunchConfig:
    """Launch of one kernel for one (architecture, dtype, size).

    block: elements of a row (or of a flat tensor) that one tile covers.
    rows: rows of a tile. programs: upper bound of the grid where programs keep partial sums.
    warps, ctas: warps of a program; thread blocks of a cluster that share one program.
    reads: number of times that a row is read: 1 where it stays in registers, else 2.
    why: the reason the tuner gave.
    """

    block: int
    rows: int = 1
    programs: int = 0
    warps: int = 4
    ctas: int = 1
    reads: int = 1
    why: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """Triton's launch options. Stages stay at 1: nothing is pipelined through shared memory,
        the loads in flight come from many small programs. Fusion of multiply and add is explicit
        because its default changes with Triton 3.10."""
        clusters = {"num_ctas": self.ctas} if self.ctas > 1 else {}
        return {
            "num_warps": self.warps, "num_stages": 1, "enable_fp_fusion": True, **clusters
        }  # fmt: skip


def launch_config(kernel: str, tensor: Tensor, size: int) -> LaunchConfig:
    """The config of `kernel` for `tensor`'s device and dtype and for rows of `size` elements.

    Raises KernelError when `size` is larger than the largest shipped one.
    """
    return lookup_config(kernel, architecture(tensor.device), tensor.element_size(), size)


# Sizes of kernels whose config does not depend on the size.
ANY = 1 << 62

_trial: dict[str, LaunchConfig] = {}


@contextmanager
def trial_configs(configs: dict[str, LaunchConfig]) -> Iterator[None]:
    """Use `configs`, by kernel, in place of the table's: for the tuner, while it compares."""
    _trial.update(configs)
    try:
        yield
    finally:
        _trial.clear()


def lookup_config(kernel: str, arch: str, itemsize: int, size: int) -> LaunchConfig:
    """The row of the table for the smallest shipped size that holds `size`."""
    return _trial.get(kernel) or _row(kernel, arch, "bf16" if itemsize == 2 else "fp32", size)


@cache
def _row(kernel: str, arch: str, dtype: str, size: int) -> LaunchConfig:
    from kernels.launch.table import TABLE

    shipped = sorted(key[3] for key in TABLE if key[:3] == (kernel, arch, dtype))
    for at_least in shipped:
        if size <= at_least:
            return TABLE[kernel, arch, dtype, at_least]
    raise KernelError(
        f"{kernel} has no launch config for rows of {size} on {arch} (the largest is "
        f"{shipped[-1] if shipped else 'none'}); use kernels=torch, or add the size to its file in "
        "kernels/analysis/cases and run `python -m kernels.analysis.tune`"
    )


@cache
def largest_size(kernel: str) -> int:
    """The largest shipped row of `kernel`, the same on every architecture."""
    from kernels.launch.table import TABLE

    return max(key[3] for key in TABLE if key[0] == kernel)


def architecture(device: torch.device) -> str:
    """The table's name for a device; the interpreter runs the configs of sm_90."""
    if interpreting():
        return "sm_90"
    if device.type == "cuda":
        return _installed(device.index if device.index is not None else torch.cuda.current_device())
    from triton.runtime import driver

    return table_arch(driver.active.get_current_target())


@cache
def _installed(index: int) -> str:
    from triton.runtime import driver

    with torch.cuda.device(index):
        return table_arch(driver.active.get_current_target())


def table_arch(target) -> str:
    """The architecture of the table whose configs `target` (a GPUTarget) can run.

    For NVIDIA the newest of its own major version, as binaries are: sm_86 and sm_89 run those of
    sm_80, sm_103 those of sm_100. Raises KernelError for any other, which may have fewer registers,
    less shared memory or no clusters.
    """
    if target.backend == "hip":
        if target.arch in ARCHES:
            return target.arch
        name = target.arch
    else:
        name, major = f"sm_{target.arch}", int(target.arch) // 10
        own = [sm for sm in map(nvidia_number, NVIDIA) if sm // 10 == major and sm <= target.arch]
        if own:
            return f"sm_{max(own)}"
    raise KernelError(
        f"{name} has no launch configs (there are {', '.join(ARCHES)}); use kernels=torch"
    )


def nvidia_number(arch: str) -> int:
    """90 of sm_90."""
    return int(arch[3:])
