"""`python -m kernels.report [--json] [--arch ARCH] [--op OP]`: what the compiler makes of every
operator at every shipped size, beside the installed Liger-Kernel. No GPU is needed.

A row: library, op, arch, size, registers (the most of its kernels), spills, shared (bytes), loads
and stores of the hot code by width in bits, bytes_ratio (moved / the formula's minimum, counted in
the interpreter with the architecture's settings, in bf16; shared vectors and partial sums apart),
binaries (compiled for 1, 16 and 17 rows). Where a launcher fails, `error` says how.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch

from kernels.ghost import Ghost, facts
from kernels.rivals import RIVALS
from kernels.workloads import WORKLOADS

ARCHES = ("sm_80", "sm_90", "sm_100")
COLUMNS = ("library", "op", "arch", "size", "registers", "spills", "shared", "hot_loads",
           "hot_stores", "bytes_ratio", "binaries")  # fmt: skip


def counted(ops: tuple[str, ...]) -> dict[str, dict[str, dict[str, float]]]:
    """Bytes moved over the minimum, by architecture, operator and size, from a process that
    interprets."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "kernels.bytes", *ops],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if run.returncode:
        raise SystemExit(f"kernels.report: counting bytes failed: {run.stderr[-500:]}")
    return json.loads(run.stdout.splitlines()[-1])


def row(
    library: str, op: str, arch: str, size: int, run: Callable[..., object], ratio: float | None
) -> dict[str, Any]:
    """One row; the launcher is called on meta tensors of 1, 16 and 17 rows."""
    start: dict[str, Any] = {"library": library, "op": op, "arch": arch, "size": size}
    with Ghost(arch) as gpu:
        try:
            for rows in (17, 16, 1):
                run(rows, size, torch.bfloat16, "meta")
        except Exception as error:
            if library == "lockgate":
                raise
            return {**start, "error": f"{type(error).__name__}: {error}"[:200]}
    distinct = {id(launched.kernel): launched for launched in gpu.launches}
    found = [facts(launched.kernel) for launched in distinct.values()]
    names = {launched.name for launched in gpu.launches}
    loads: Counter[int] = sum((Counter(f.hot_loads) for f in found), Counter())
    stores: Counter[int] = sum((Counter(f.hot_stores) for f in found), Counter())
    return {
        **start,
        "registers": max(f.registers for f in found),
        "spills": sum(f.spills for f in found),
        "shared": max(f.shared for f in found),
        "hot_loads": dict(sorted(loads.items(), reverse=True)),
        "hot_stores": dict(sorted(stores.items(), reverse=True)),
        "bytes_ratio": ratio,
        "binaries": round(len(distinct) / len(names), 2),
    }


def rows(arches: tuple[str, ...], ops: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Every row, an operator's own beside its rival's."""
    ratios = counted(ops)
    for op in ops:
        for arch in arches:
            for size in WORKLOADS[op].sizes:
                ratio = ratios[arch][op][str(size)]
                yield row("lockgate", op, arch, size, WORKLOADS[op].run, ratio)
                if op in RIVALS:
                    yield row("liger-kernel", op, arch, size, RIVALS[op], None)


def main(argv: list[str] | None = None) -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(prog="python -m kernels.report")
    parser.add_argument("--json", action="store_true", help="a JSON list of rows")
    parser.add_argument("--arch", choices=ARCHES, action="append")
    parser.add_argument("--op", choices=sorted(WORKLOADS), action="append")
    arguments = parser.parse_args(argv)
    found = rows(tuple(arguments.arch or ARCHES), tuple(arguments.op or WORKLOADS))
    if arguments.json:
        print(json.dumps(list(found), indent=1))
        return
    print("  ".join(COLUMNS))
    for entry in found:
        shown = [entry.get("error")] if "error" in entry else []
        print("  ".join(str(entry.get(column, "-")) for column in COLUMNS), *shown, flush=True)


if __name__ == "__main__":
    main()
