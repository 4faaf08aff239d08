"""Declaration of an operator for the tools: its launches, its bench case, Liger's launchers beside
them and its rows of the launch table. A file of kernels/analysis/cases declares one operator."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernels.launch.config import LaunchConfig

# Shipped sizes of a row.
HIDDEN = (1024, 2048, 4096, 8192, 16384, 32768)
FEED_FORWARD = (11008, 14336, 53248)
HEAD = (64, 128, 256)
VOCABULARY = (32000, 32001, 50257, 65536, 128256, 131072, 262144)
Q_HEADS, K_HEADS = 32, 8
EPS = 1e-6

Outputs = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Workload:
    """One operator in one direction, launched on tensors of any device; meta tensors do where
    nothing runs.

    kernel: its name in the launch table.
    sizes: the shipped sizes of a row (hidden, head or vocabulary).
    run: called with (rows, size, dtype, device), launches the operator's kernels once, and with
    the keywords of the variations in `varies` other than "rows".
    minimum: bytes that must move for (rows, size, bytes of an element), as the operator's
    docstring states it, without the vectors that every row shares.
    excluded_args: pointer arguments that `minimum` leaves out: vectors that every row shares, from
    cache, and partial sums.
    narrow: accesses of less than 128 bits in the hot code, for each row of a tile, that only reach
    the row's scalars (rstd, target, loss), or the last columns of a tensor.
    variants: the same kernels with other options, which one config has to suit as well.
    varies: variations of kernels.analysis.report that must not add a binary.
    account: called with a size, gives further figures of the report, of what no kernel shows.
    """

    kernel: str
    sizes: tuple[int, ...]
    run: Callable[..., object]
    minimum: Callable[[int, int, int], int]
    excluded_args: tuple[str, ...] = ()
    narrow: int = 0
    variants: tuple[Callable[..., object], ...] = ()
    varies: tuple[str, ...] = ("rows",)
    account: Callable[[int], dict[str, float]] = lambda size: {}


@dataclass(frozen=True)
class LigerLaunch:
    """Liger-Kernel's launcher of a workload.

    run: called as the workload's, with the same variations. excluded_args: as the workload's, by
    the names of Liger's kernels.
    """

    run: Callable[..., object]
    excluded_args: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchCase:
    """One public operator four ways on the same inputs: ours, torch as one would write it, the
    same compiled, and Liger-Kernel's.

    sizes: the shipped ones. inputs: makes them for (rows, size, dtype, device); the first `leaves`
    of them are differentiated. lockgate, eager, liger: called with them; liger is None where
    Liger-Kernel has nothing of the kind. workloads: forward and backward, whose minimum of bytes
    the bandwidth is counted from; None where matrix products bound the time.
    """

    sizes: tuple[int, ...]
    inputs: Callable[..., tuple[Tensor, ...]]
    leaves: int
    lockgate: Callable[..., Outputs]
    eager: Callable[..., Outputs]
    liger: Callable[..., Outputs] | None = None
    workloads: tuple[Workload, Workload] | None = None

    def min_bytes(self, rows: int, size: int, itemsize: int) -> dict[str, int]:
        """The formula's bytes by direction; empty where there is none."""
        if self.workloads is None:
            return {}
        there, back = (work.minimum(rows, size, itemsize) for work in self.workloads)
        return {"forward": there, "backward": back, "both": there + back}


@dataclass(frozen=True)
class TableRows:
    """Rows of the launch table for one kernel, at each architecture and dtype.

    workloads: names of those that launch the kernel; one config has to suit all.
    sizes: of the rows; (ANY,) where the config does not depend on the size.
    candidates: called with (arch, dtype, size, clusters), yields configs, the most wanted first.
    probe: size that is compiled in place of ANY. odd: the size below is compiled too.
    keeps_sums: the grid is bounded, as every program leaves a row of partial sums.
    """

    workloads: tuple[str, ...]
    sizes: tuple[int, ...]
    candidates: Callable[[str, str, int, bool], Iterator[LaunchConfig]]
    probe: int = 131072
    odd: bool = False
    keeps_sums: bool = False


@dataclass(frozen=True)
class OperatorCases:
    """Everything that a file of kernels/analysis/cases declares, by name, as its `CASES`."""

    workloads: dict[str, Workload]
    bench: dict[str, BenchCase]
    liger: dict[str, LigerLaunch] = field(default_factory=dict)
    table: tuple[TableRows, ...] = ()


def random_tensor(dtype: torch.dtype, device: str, *shape: int) -> Tensor:
    """Normal numbers on the CPU; elsewhere memory as it is, since nothing is computed from it."""
    if device != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.randn(shape).to(dtype)


def random_targets(m: int, v: int, device: str, ignored: int | None = None) -> Tensor:
    """(m,) targets. With `ignored` the first so many are ignored, and all are real, on the CPU,
    even where nothing runs: a host that counts them then has something to count."""
    if ignored is None and device == "meta":
        return torch.empty(m, dtype=torch.int64, device=device)
    targets = torch.randint(0, v, (m,), device=device if device != "meta" else "cpu")
    targets[: ignored or 0] = -100
    return targets


def random_rows(count: int, weights: int = 0) -> Callable[..., tuple[Tensor, ...]]:
    """Inputs of a bench case: `count` tensors (M, N), then `weights` of (N,)."""

    def inputs(m, n, dtype, device):
        shapes = [(m, n)] * count + [(n,)] * weights
        return tuple(torch.randn(shape, dtype=dtype, device=device) for shape in shapes)

    return inputs
