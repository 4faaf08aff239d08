"""`python -m kernels.report [--json] [--arch ARCH] [--op OP]`: what the compiler makes of every
operator at every shipped size, in bf16, beside the installed Liger-Kernel. No GPU is needed, and
nothing is said about time. Progress goes to stderr, the report to stdout.

A row: library (Liger's version beside it), op, arch, size (of a row: hidden, head or vocabulary),
  registers     of a thread, the most of the launcher's kernels
  spills        instructions that reach local memory, all kernels together
  shared        bytes of shared memory, the most of the kernels
  hot_loads     accesses by width in bits, in the innermost loops or, without a loop, everywhere
  hot_stores    the same for stores
  bytes_ratio   what the kernels moved over the formula's minimum, counted in the interpreter with
                the architecture's settings; shared vectors and partial sums apart
  binaries      that the same op, dtype and size need over the variations below, of the kernel
                that needs most; binaries_by has the number by what varies
Where a launcher fails there is `error` instead, where only its bytes could not be counted
`bytes_error`. What varies: "rows" 1, 2, 16, 17, 1000, 4096; "batch" 1, 2, 3, 4, 8, 16 (rotations);
"ignored" targets 0, 1, 16 and all but one, "smoothing" 0, 0.1, 0.2, 0.3, 0.4 (losses).

Liger's cross entropy makes loss and gradient in one kernel: it stands beside linear_cross_entropy.
Liger has nothing of the kind of cross_entropy_fwd and _bwd, rope_norm_fwd and _bwd.

Exit: 0; 1 when a launcher of this package failed; 2 for wrong arguments; 130 when interrupted.
"""

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from kernels import rivals
from kernels.ghost import Ghost, facts
from kernels.settings import NVIDIA
from kernels.tune import PROCESSORS
from kernels.workloads import WORKLOADS

ROWS = 4096
VARIATIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "rows": tuple({"m": rows} for rows in (1, 2, 16, 17, 1000, 4096)),
    "batch": tuple({"m": 64, "batch": batch} for batch in (1, 2, 3, 4, 8, 16)),
    "ignored": tuple({"ignored": count} for count in (0, 1, 16, ROWS - 1)),
    "smoothing": tuple({"smoothing": share} for share in (0.0, 0.1, 0.2, 0.3, 0.4)),
}
VARIES = {
    **dict.fromkeys(("rope", "rope_norm_fwd", "rope_norm_bwd"), ("batch",)),
    **dict.fromkeys(
        ("cross_entropy_fwd", "cross_entropy_bwd", "linear_cross_entropy"),
        ("rows", "ignored", "smoothing"),
    ),
}
COLUMNS = {
    "op": "op", "arch": "arch", "size": "size", "library": "library", "registers": "regs",
    "spills": "spills", "shared": "shared", "hot_loads": "loads", "hot_stores": "stores",
    "bytes_ratio": "bytes", "binaries": "binaries",
}  # fmt: skip


def binaries(
    arch: str, op: str, size: int, run: Callable[..., object]
) -> tuple[int, dict[str, int]]:
    """(binaries over all variations, by what varies), of the kernel that needs most."""
    needed: dict[str, set[tuple[str, str]]] = {}
    for axis in VARIES.get(op, ("rows",)):
        with Ghost(arch) as gpu:
            for choice in VARIATIONS[axis]:
                given = dict(choice)
                run(given.pop("m", ROWS), size, torch.bfloat16, "meta", **given)
        needed[axis] = {(one.name, one.kernel.metadata.hash) for one in gpu.launches}

    def most(found: set[tuple[str, str]]) -> int:
        return max(Counter(name for name, _ in found).values())

    by = {axis: most(found) for axis, found in needed.items()}
    return most(set().union(*needed.values())), by


def row(
    library: dict[str, str], op: str, arch: str, size: int, run: Callable[..., object]
) -> dict[str, Any]:
    """One row, its bytes still to come; the launcher is called on meta tensors."""
    start = {**library, "op": op, "arch": arch, "size": size}
    try:
        with Ghost(arch) as gpu:
            run(ROWS, size, torch.bfloat16, "meta")
        total, by = binaries(arch, op, size, run)
    except Exception as error:  # noqa: BLE001  whatever it was is the row
        return {**start, "error": f"{type(error).__name__}: {error}"[:200]}
    kernels = {launched.kernel.metadata.hash: launched.kernel for launched in gpu.launches}
    found = [facts(kernel) for kernel in kernels.values()]
    loads: Counter[int] = sum((Counter(f.hot_loads) for f in found), Counter())
    stores: Counter[int] = sum((Counter(f.hot_stores) for f in found), Counter())
    return {
        **start,
        "registers": max(f.registers for f in found),
        "spills": sum(f.spills for f in found),
        "shared": max(f.shared for f in found),
        "hot_loads": dict(sorted(loads.items(), reverse=True)),
        "hot_stores": dict(sorted(stores.items(), reverse=True)),
        "binaries": total,
        "binaries_by": by,
    }


def rows_of(op: str, arch: str) -> list[dict[str, Any]]:
    """The rows of one job: at each size an operator's own beside its rival's."""
    peer = rivals.version()
    found = []
    with rivals.on(arch, PROCESSORS[arch]) if peer else nullcontext():
        for size in WORKLOADS[op].sizes:
            found.append(row({"library": "lockgate"}, op, arch, size, WORKLOADS[op].run))
            if peer and op in rivals.RIVALS:
                library = {"library": rivals.NAME, "version": peer}
                found.append(row(library, op, arch, size, rivals.RIVALS[op].run))
    return found


@contextmanager
def deaf() -> Iterator[None]:
    """Processes started in here never hear Ctrl-C; this one hears it afterwards, and ends them.

    They inherit the mask. It does not keep the signal from this process's other threads, so a
    handler remembers it meanwhile.
    """
    heard: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if heard:
        raise KeyboardInterrupt


@contextmanager
def counting(
    arches: tuple[str, ...], ops: tuple[str, ...]
) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """A process that interprets counts bytes meanwhile; the value waits for its rows."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "kernels.bytes"]
    command += [f"--arch={arch}" for arch in arches] + [f"--op={op}" for op in ops]
    with deaf():
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)

    def counted() -> list[dict[str, Any]]:
        text, _ = process.communicate()
        if process.returncode:
            raise SystemExit("kernels.report: bytes could not be counted; see above")
        return json.loads(text)

    try:
        yield counted
    finally:
        process.kill()
        process.wait()


def _begin() -> None:
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # Triton's default, which warns


def rows(arches: tuple[str, ...], ops: tuple[str, ...]) -> list[dict[str, Any]]:
    """Every row, in order of operator, architecture, size and library."""
    jobs = [(op, arch) for op in ops for arch in arches]
    found: list[dict[str, Any]] = []
    start = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    workers = min(os.cpu_count() or 1, len(jobs))
    with counting(arches, ops) as counted, ProcessPoolExecutor(workers, spawn, _begin) as pool:
        try:
            with deaf():
                results = [pool.submit(rows_of, *job) for job in jobs]
            for number, ((op, arch), result) in enumerate(zip(jobs, results, strict=True), 1):
                found += result.result()
                took = time.monotonic() - start
                print(f"{number}/{len(jobs)} {op} {arch}, {took:.0f} s", file=sys.stderr)
            moved = {key(entry): entry for entry in counted()}
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()  # or leaving the pool would wait for all that was asked of it
            raise
    return [entry if "error" in entry else {**entry, **moved[key(entry)]} for entry in found]


def key(entry: dict[str, Any]) -> tuple[Any, ...]:
    """What names a row."""
    return tuple(entry[name] for name in ("library", "op", "arch", "size"))


def shown(value: Any) -> str:
    """One cell: widths as `128:4 32:1`, what is not there as a dash."""
    if isinstance(value, dict):
        return " ".join(f"{bits}:{count}" for bits, count in value.items()) or "-"
    return "-" if value is None else str(value)


def table(found: list[dict[str, Any]]) -> list[str]:
    """The rows as aligned lines, the headings first."""
    cells = [[shown(entry.get(name)) for name in COLUMNS] for entry in found]
    lines = [list(COLUMNS.values()), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    notes = ["", *(entry.get("error") or entry.get("bytes_error") or "" for entry in found)]
    return [
        "  ".join([*map(str.ljust, line, widths), note]).rstrip()
        for line, note in zip(lines, notes, strict=True)
    ]


def main(argv: list[str] | None = None) -> int:
    """Print the report; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m kernels.report", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="a JSON list of rows")
    parser.add_argument("--arch", choices=NVIDIA, action="append")
    parser.add_argument("--op", choices=sorted(WORKLOADS), action="append")
    arguments = parser.parse_args(argv)
    peer = rivals.version()
    beside = f"beside liger-kernel {peer}" if peer else "alone: liger-kernel is not installed"
    print(f"kernels.report: compiling, {beside}", file=sys.stderr)
    try:
        found = rows(tuple(arguments.arch or NVIDIA), tuple(arguments.op or WORKLOADS))
    except KeyboardInterrupt:
        print("kernels.report: interrupted", file=sys.stderr)
        return 130
    print(json.dumps(found, indent=1) if arguments.json else "\n".join(table(found)))
    ours = (entry for entry in found if entry["library"] == "lockgate")
    return int(any({"error", "bytes_error"} & entry.keys() for entry in ours))


if __name__ == "__main__":
    raise SystemExit(main())
