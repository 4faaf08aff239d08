"""Time every operator on a GPU, in bf16, against torch eager, torch.compile and Liger-Kernel:
`python -m kernels.analysis.bench [--json] [--op OP] [--size SIZE] [--rows ROWS] [--peak GB/S]`.

Each library gets its own copy of the same inputs, made before the clock starts. Its results and
gradients are first compared with ours; a wrong answer is not timed but reported. Then, on the same
tensors, "forward" (keeping what the backward needs), "backward" (of a kept graph) and "both" are
timed. Our linear_cross_entropy and both of Liger's losses make their gradients in the forward:
compare these by "both". A row has microseconds (median) and peak_share: the formula's bytes in that
time, in per cent of the device's peak bandwidth; none where matrix products bound the time.

Exit: 0; 1 without a GPU; 2 for wrong arguments or a device whose peak is neither known nor given;
3 when an answer was wrong or a library failed; 130 when interrupted.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor
from torch._functorch import config as functorch_config

from kernels.analysis import liger
from kernels.analysis.case import BenchCase
from kernels.analysis.cases import BENCH_CASES

# Peak bandwidth in GB/s by the driver's name, from the vendor's data sheets (A100 80GB SXM,
# H100 SXM, H200, B200), not measured.
PEAK = {
    "NVIDIA A100-SXM4-80GB": 2039.0,
    "NVIDIA H100 80GB HBM3": 3350.0,
    "NVIDIA H200": 4800.0,
    "NVIDIA B200": 8000.0,
}
ELEMENTS = 1 << 30  # of one input, at most
DTYPE = torch.bfloat16
# The most by which a row of another library's result may differ from ours, of the row's norm: a few
# roundings to bf16 (each up to 0.004), where the others round more often than we do.
TOLERANCE = 0.03

Row = dict[str, Any]


@dataclass(frozen=True)
class BenchDevice:
    """Device to time on. name: the driver's. arch: sm_90 and the like. device: torch's.

    timer: milliseconds that a call takes. compiler: torch.compile with its options.
    """

    name: str
    arch: str
    device: str
    timer: Callable[[Callable[[], object]], float]
    compiler: Callable[[Callable[..., Any]], Callable[..., Any]]


def installed_gpu() -> BenchDevice | None:
    """The GPU of this process, or None."""
    if not torch.cuda.is_available():
        return None
    from triton.testing import do_bench

    major, minor = torch.cuda.get_device_capability()
    return BenchDevice(
        torch.cuda.get_device_name(), f"sm_{major}{minor}", "cuda",
        partial(do_bench, return_mode="median"), partial(torch.compile, dynamic=False),
    )  # fmt: skip


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest norm of a row's difference over the row's norm (or the mean row's, if larger);
    infinite for other shapes and for NaN."""
    if ours.shape != theirs.shape:
        return float("inf")
    a, b = (x.detach().float().reshape(-1, x.shape[-1] if x.dim() else 1) for x in (ours, theirs))
    size = torch.linalg.vector_norm(a, dim=1)
    apart = torch.linalg.vector_norm(a - b, dim=1) / size.clamp(min=size.mean()).clamp(min=1e-30)
    worst = apart.max().item()
    return worst if worst == worst else float("inf")


class Answers:
    """A library's outputs and gradients on its own copy of the inputs, and the calls to time."""

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Tensor],
        leaves: int,
        dout: Sequence[Tensor] | None,
    ):
        self.function = function
        self.inputs = [x.detach().clone().requires_grad_(i < leaves) for i, x in enumerate(inputs)]
        self.leaves = self.inputs[:leaves]
        self.kept = as_tuple(function(*self.inputs))
        outputs = [x.detach().clone() for x in self.kept]  # a backward may overwrite them
        if dout is None:
            dout = [torch.randn_like(x) if x.dim() else torch.ones_like(x) for x in outputs]
        self.dout = [x.clone() for x in dout]
        self.values = (*outputs, *(x.clone() for x in self.backward()))

    def forward(self) -> tuple[Tensor, ...]:
        return as_tuple(self.function(*self.inputs))

    def backward(self) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.kept, self.leaves, self.dout, retain_graph=True)

    def both(self) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.forward(), self.leaves, self.dout)


def bench_rows(
    case: BenchCase, op: str, size: int, max_rows: int, machine: BenchDevice
) -> Iterator[Row]:
    """The rows of one operator at one size: a time, or the error that stands instead of it."""
    torch.compiler.reset()  # a second size must not be compiled for any size
    count = min(max_rows, max(1, ELEMENTS // size))
    min_bytes = case.min_bytes(count, size, DTYPE.itemsize)
    inputs = case.inputs(count, size, DTYPE, machine.device)
    libraries = {
        "lockgate": case.lockgate,
        "torch eager": case.eager,
        "torch.compile": machine.compiler(case.eager),
        liger.NAME: case.liger if liger.installed_version() else None,
    }
    ours: Answers | None = None
    for library, function in libraries.items():
        if function is None:
            continue
        start = {"op": op, "size": size, "rows": count, "library": library}
        try:
            answers = Answers(function, inputs, case.leaves, ours.dout if ours else None)
            ours = ours or answers
            apart = max(map(difference, ours.values, answers.values))
            if apart > TOLERANCE:
                yield {**start, "error": f"wrong answer: {apart:.1%} of a row's norm from ours"}
                continue
            for direction in ("forward", "backward", "both"):
                ms = machine.timer(getattr(answers, direction))
                yield {
                    **start,
                    "direction": direction,
                    "microseconds": round(1000 * ms, 2),
                    "bytes": min_bytes.get(direction),
                }
        except Exception as error:  # noqa: BLE001  memory, a kernel that does not compile, ...
            yield {**start, "error": f"{type(error).__name__}: {error}"[:200]}
            if ours is None:
                return  # nothing to compare the others with


def measured_rows(
    ops: Sequence[str], sizes: Sequence[int], max_rows: int, machine: BenchDevice, peak: float
) -> Iterator[Row]:
    """Every row, with its share of the peak and the device and versions it was measured on."""
    place = {
        "dtype": str(DTYPE).removeprefix("torch."), "device": machine.name, "arch": machine.arch,
        "peak": peak, "torch": torch.__version__, "triton": triton.__version__,
        "liger": liger.installed_version(),
    }  # fmt: skip
    cases = [(op, size) for op in ops for size in sizes or BENCH_CASES[op].sizes]
    # the backward of one graph is timed many times, so compiled graphs may not eat their inputs
    with functorch_config.patch(donated_buffer=False):
        for number, (op, size) in enumerate(cases, 1):
            sys.stderr.write(f"{number}/{len(cases)} {op} {size}\n")
            for row in bench_rows(BENCH_CASES[op], op, size, max_rows, machine):
                if min_bytes := row.pop("bytes", None):
                    share = min_bytes / (row["microseconds"] * 1e-6) / (peak * 1e9)
                    row["peak_share"] = round(100 * share, 1)
                yield {**row, **place}


def row_line(row: Row) -> str:
    """A row as a line of text, written as soon as it is measured and so of fixed widths."""
    start = f"{row['op']:<21} {row['size']:>7} {row['library']:<14}"
    if "error" in row:
        return f"{start} {row['error']}"
    share = f"{row['peak_share']:>6.1f} %" if "peak_share" in row else f"{'-':>8}"
    return f"{start} {row['direction']:<9} {row['microseconds']:>12.2f} us {share}"


def main(argv: list[str] | None = None, machine: BenchDevice | None = None) -> int:
    """Write the rows as they come (with --json all at the end); returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m kernels.analysis.bench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="a JSON list of rows")
    parser.add_argument("--op", choices=sorted(BENCH_CASES), action="append")
    parser.add_argument("--size", type=int, action="append", help="instead of the shipped sizes")
    parser.add_argument("--rows", type=int, default=8192, help="at most (default 8192)")
    parser.add_argument("--peak", type=float, help="the device's bandwidth in GB/s")
    arguments = parser.parse_args(argv)
    machine = machine or installed_gpu()
    if machine is None:
        sys.stderr.write(
            "kernels.analysis.bench: no GPU here, so there is nothing to time; `python -m "
            "kernels.analysis.report` shows the compiler's account, which needs none\n"
        )
        return 1
    peak = arguments.peak or PEAK.get(machine.name)
    if peak is None:
        sys.stderr.write(
            f"kernels.analysis.bench: the peak bandwidth of {machine.name!r} is not known here; "
            "state it in GB/s with --peak\n"
        )
        return 2
    found: list[Row] = []
    try:
        ops, sizes = arguments.op or list(BENCH_CASES), arguments.size or ()
        for row in measured_rows(ops, sizes, arguments.rows, machine, peak):
            found.append(row)
            if not arguments.json:
                sys.stdout.write(row_line(row) + "\n")
                sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("kernels.analysis.bench: interrupted\n")
        return 130
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 3 if any("error" in row for row in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
