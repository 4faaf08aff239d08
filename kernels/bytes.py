"""Count the bytes of launchers in the interpreter: `python -m kernels.bytes --arch ARCH --op OP`,
each as often as wanted, everything without them.

The report runs this in a process of its own, because a process that interprets cannot compile. It
prints a JSON list of rows: library, op, arch, size, bytes_ratio (what the kernels loaded and stored
over the formula's minimum, in bf16), or bytes_error where a launcher cannot be interpreted. What a
launcher leaves to torch (matrix products, Liger's sums of partial results) is not counted, for
either library.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

os.environ["TRITON_INTERPRET"] = "1"

import torch

from kernels import rivals, settings
from kernels.interpreter import Meter, install
from kernels.workloads import WORKLOADS, Workload

# What every row shares and cache holds, and partial sums, which the formulas count per program.
APART = ("WEIGHT", "WEIGHT_SUM", "COS", "SIN", "Q_WEIGHT", "K_WEIGHT", "DWEIGHT", "PARTIAL")
ROWS = 2


def apart(op: str) -> tuple[str, ...]:
    """APART and what only some operators share: OUT where it is the sum of partial sums, G where
    it is one scalar. Elsewhere these names are a result and a gradient of every row."""
    return (
        *APART,
        *(["OUT"] if op.endswith("norm_bwd") else []),
        *(["G"] if op.startswith("linear_cross_entropy") else []),
    )


def measured(
    work: Workload, size: int, run: Callable[..., object], without: tuple[str, ...]
) -> dict[str, Any]:
    """bytes_ratio of one launcher, or the bytes_error that kept it from being counted."""
    try:
        with Meter() as meter:
            run(ROWS, size, torch.bfloat16, "cpu")
    except Exception as error:  # noqa: BLE001  whatever it was is the row
        return {"bytes_error": f"{type(error).__name__}: {error}"[:200]}
    return {"bytes_ratio": round(meter.bytes(without) / work.minimum(ROWS, size, 2), 4)}


def rows(ops: Sequence[str], arches: Sequence[str] = settings.NVIDIA) -> Iterator[dict[str, Any]]:
    """A row per architecture, operator, size and library."""
    rival = rivals.RIVALS if rivals.version() else {}
    for arch in arches:
        for op in ops:
            work = WORKLOADS[op]
            for size in work.sizes:
                place = {"op": op, "arch": arch, "size": size}
                # the interpreter runs the settings of whichever architecture it is told
                with mock.patch.object(settings, "architecture", return_value=arch):
                    found = measured(work, size, work.run, apart(op))
                yield {"library": "lockgate", **place, **found}
                if op in rival:
                    with rivals.interpretable(), rivals.on(arch):
                        found = measured(work, size, rival[op].run, rival[op].apart)
                    yield {"library": rivals.NAME, **place, **found}


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(prog="python -m kernels.bytes", description=__doc__)
    parser.add_argument("--arch", choices=settings.NVIDIA, action="append")
    parser.add_argument("--op", choices=sorted(WORKLOADS), action="append")
    wanted = parser.parse_args()
    install()
    print(json.dumps(list(rows(wanted.op or list(WORKLOADS), wanted.arch or settings.NVIDIA))))


if __name__ == "__main__":
    main()
